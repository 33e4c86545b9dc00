"""What stands before every route: trusted hosts, credentials, cross-site requests, the size of a body.

One ASGI layer, so that no route can forget it, and so that nothing of a body is read for a stranger. Whatever
begins with /v1/ needs credentials, except the opening of a session. It must not know any noun of the service.
"""

from __future__ import annotations

import http.cookies
from collections.abc import Awaitable, Callable, Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.domain.errors import StoreUnavailable
from api.domain.records import Principal
from api.domain.versions import program_version
from api.errors import ApiError, ForbiddenError, TooLargeError, UnauthorizedError, UnavailableError, problem

COOKIE = "trainshed_session"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
SESSION_PATH = "/v1/session"

Authenticate = Callable[[str], Awaitable[Principal | None]]


def host_of(header: str | None) -> str:
    """Return the host of a Host header without its port, in lower case; brackets of IPv6 stay."""
    text = (header or "").strip().lower()
    if text.startswith("["):
        return text.partition("]")[0] + "]"
    return text.partition(":")[0]


def is_cross_site(headers: Headers) -> bool:
    """Tell whether a request that changes something was not made by our own pages.

    Every browser of today sends Sec-Fetch-Site or, with such a request, Origin; a request with neither that
    carries a cookie is not from a browser page and has no business using one.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site != "same-origin"
    origin = headers.get("origin")
    if origin is None:
        return True
    return urlsplit(origin).netloc.lower() != (headers.get("host") or "").lower()


def cookie_of(headers: Headers) -> str | None:
    """Return the session's token, if the request carries one."""
    jar: http.cookies.SimpleCookie = http.cookies.SimpleCookie()
    try:
        jar.load(headers.get("cookie", ""))
    except http.cookies.CookieError:
        return None
    morsel = jar.get(COOKIE)
    return morsel.value if morsel else None


def bearer_of(headers: Headers) -> str | None:
    """Return the token of the Authorization header; raises UnauthorizedError for another scheme."""
    header = headers.get("authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise UnauthorizedError("TOKEN_INVALID", "send the token as `Authorization: Bearer ts_...`")
    return token.strip()


class Gate:
    """The ASGI layer; puts the principal into `scope["state"]`."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        authenticate: Authenticate,
        trusted_hosts: Collection[str],
        max_body_bytes: int,
        unbounded: Callable[[Scope], bool],
        open_paths: Collection[str] = (),
    ) -> None:
        """`open_paths` may be read without credentials."""
        self.app = app
        self._authenticate = authenticate
        self._hosts = frozenset(host.lower() for host in trusted_hosts)
        self._max_body_bytes = max_body_bytes
        self._unbounded = unbounded
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._check_host(headers)
            await self._check_caller(scope, headers)
            receive = self._bound(scope, headers, receive)
        except ApiError as error:
            response = problem(
                error.status,
                error.code,
                error.detail,
                instance=scope["path"],
                errors=error.errors,
                headers=error.headers,
            )
            await response(scope, receive, _hardened(send))
            return
        await self.app(scope, receive, _hardened(send))

    def _check_host(self, headers: Headers) -> None:
        if "*" not in self._hosts and host_of(headers.get("host")) not in self._hosts:
            raise ApiError("HOST_UNKNOWN", "this service does not answer under that name", status=400)

    async def _check_caller(self, scope: Scope, headers: Headers) -> None:
        path, method = scope["path"], scope["method"]
        if not path.startswith("/v1/") or (path == SESSION_PATH and method == "POST"):
            return
        token = bearer_of(headers)
        from_cookie = token is None
        if token is None:
            token = cookie_of(headers)
        if token is None and method in SAFE_METHODS and path in self._open_paths:
            return
        if token is None:
            raise UnauthorizedError("TOKEN_MISSING", "this needs a token")
        try:
            principal = await self._authenticate(token)
        except StoreUnavailable as error:
            raise UnavailableError(error.code, "the database does not answer; try again") from error
        if principal is None:
            raise UnauthorizedError("TOKEN_INVALID", "the token is unknown, expired or revoked")
        if method not in SAFE_METHODS and from_cookie and is_cross_site(headers):
            raise ForbiddenError("CROSS_SITE", "a request of another site cannot use this session")
        scope_needed = "read" if method in SAFE_METHODS else "write"
        if path != SESSION_PATH and scope_needed not in principal.scopes:
            raise ForbiddenError("SCOPE_MISSING", f"the token lacks the scope {scope_needed!r}")
        scope.setdefault("state", {})["principal"] = principal

    def _bound(self, scope: Scope, headers: Headers, receive: Receive) -> Receive:
        """Wrap `receive` so that a body over the limit ends in a 413, whatever its Content-Length said."""
        if self._unbounded(scope):
            return receive
        limit = self._max_body_bytes
        if _declared_length(headers) > limit:
            raise TooLargeError("CONTENT_TOO_LARGE", f"the body is over {limit} bytes")
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                # An HTTPException passes through the reading of a body, where others become a 400.
                raise HTTPException(413, f"the body is over {limit} bytes")
            return message

        return bounded


def _declared_length(headers: Headers) -> int:
    text = headers.get("content-length", "0")
    return int(text) if text.isascii() and text.isdigit() else 0


def _hardened(send: Send) -> Send:
    """Add the headers that every answer has."""

    async def hardened(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.setdefault("X-Content-Type-Options", "nosniff")
            headers.setdefault("Referrer-Policy", "no-referrer")
            headers.setdefault("Trainshed-Version", program_version())
            headers.setdefault("Cache-Control", "no-store")
            headers.setdefault(
                "Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; sandbox"
            )
        await send(message)

    return hardened
