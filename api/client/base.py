"""What the blocking client is built on: connections, requests, and who carries plans out.

Shared with the asynchronous one is whatever does not wait.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from api.client.driving import carry_out
from api.client.errors import UnreachableError, VersionError, error_of
from api.client.steps import A, Pages, Plan
from api.client.versions import HEADER, client_version, distance

_LOG = logging.getLogger("trainshed.client")
_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
T = TypeVar("T")


class Meeting:
    """Compares the versions of client and service, told by the first answer that tells."""

    def __init__(self, url: str, on_note: Callable[[str], None] | None) -> None:
        self._url = url
        self._on_note = on_note or _LOG.warning
        self.service_version: str | None = None

    def look(self, response: httpx.Response) -> None:
        """Note a service of another minor version once; raise VersionError for another major."""
        told = response.headers.get(HEADER)
        if told is None or told == self.service_version:
            return
        self.service_version = told
        mine = client_version()
        apart = distance(mine, told)
        if apart == "none":
            return
        text = f"{self._url} is of version {told[:40]}, this client of {mine}"
        if apart == "major":
            self.service_version = None
            raise VersionError(f"{text}: install one of the same major version")
        self._on_note(f"{text}; what is new in either may be missing")


def headers_for(token: str | None) -> dict[str, str]:
    """Return what every request carries: who asks, in which version, and by what right."""
    headers = {"User-Agent": f"trainshed-client/{client_version()}"}
    return headers | ({"Authorization": f"Bearer {token}"} if token else {})


def connection(url: str, token: str | None) -> dict[str, Any]:
    """Return what both kinds of connection are made with."""
    # Proxies of the environment must not see a service on this machine.
    return {
        "base_url": url,
        "headers": headers_for(token),
        "timeout": _TIMEOUT,
        "trust_env": not _is_local(url),
    }


class BaseClient:
    """Talks to one service with one token; knows no noun of it."""

    def __init__(
        self,
        url: str,
        token: str | None,
        *,
        transport: httpx.BaseTransport | None = None,
        on_note: Callable[[str], None] | None = None,
    ) -> None:
        """`on_note` is told what a person should know, such as a service of another minor version."""
        self.url = url.rstrip("/")
        self._meeting = Meeting(self.url, on_note)
        self._http = httpx.Client(**connection(self.url, token), transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send one request and return its 2xx answer."""
        with reaching(self.url):
            response = self._http.request(method, path, **options)
        self._meeting.look(response)
        if not response.is_success:
            raise error_of(response.status_code, response.content)
        return response

    @contextmanager
    def stream(self, path: str, **options: Any) -> Iterator[httpx.Response]:
        """Open a GET whose 2xx body is read piece by piece."""
        with reaching(self.url), self._http.stream("GET", path, **options) as response:
            self._meeting.look(response)
            if not response.is_success:
                raise error_of(response.status_code, response.read())
            yield response

    def carry_out(self, plan: Plan[T]) -> T:
        """Carry out what a method is made of."""
        return carry_out(plan, self.request)

    def items(self, pages: Pages[A]) -> Iterator[A]:
        """Yield the items of a list, page by page."""
        while pages.has_more:
            yield from self.carry_out(pages.next_page())


def _is_local(url: str) -> bool:
    return httpx.URL(url).host in ("127.0.0.1", "localhost", "::1")


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Turn what a connection can suffer into UnreachableError."""
    try:
        yield
    except (httpx.TransportError, httpx.InvalidURL, httpx.StreamError) as error:
        raise UnreachableError(f"{url} does not answer: {str(error) or type(error).__name__}") from error
