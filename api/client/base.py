"""What every part of the client is built on: requests, typed answers and pages, files sent and checked."""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from pydantic import ValidationError

from api.client import uploads
from api.client.errors import ApiError, UnreachableError, VersionError, error_of
from api.client.models import _Answer
from api.client.patience import Patience, time_left
from api.client.versions import HEADER, client_version, distance

_LOG = logging.getLogger("trainshed.client")
_CHUNK_BYTES = 1 << 18
_UPLOAD_TIMEOUT = httpx.Timeout(600.0, connect=5.0)
_ANSWER_S = 30.0
_TIMEOUT = httpx.Timeout(_ANSWER_S, connect=5.0)

Progress = Callable[[int, int], None]
_A = TypeVar("_A", bound=_Answer)


class Meeting:
    """Compares the versions of client and service, told by the first answer that tells."""

    def __init__(self, url: str, on_note: Callable[[str], None]) -> None:
        self._url = url
        self._on_note = on_note
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
        self._meeting = Meeting(self.url, on_note or _LOG.warning)
        # Proxies of the environment must not see a service on this machine.
        self._http = httpx.Client(
            base_url=self.url,
            headers=headers_for(token),
            timeout=_TIMEOUT,
            transport=transport,
            trust_env=not _is_local(url),
        )

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

    def _one(self, kind: type[_A], response: httpx.Response) -> _A:
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            raise UnreachableError(
                f"{self.url} does not answer like this service: {error.errors()[0]['msg']}"
            ) from error

    def _many(self, kind: type[_A], path: str, params: Mapping[str, Any]) -> Iterator[_A]:
        query = dict(params)
        while True:
            page = self.request("GET", path, params=query).json()
            for item in page["items"]:
                yield kind.model_validate(item)
            if not page.get("next"):
                return
            query["cursor"] = page["next"]

    def _send_file(
        self,
        kind: type[_A],
        path: str,
        file: Path,
        order: Mapping[str, Any],
        progress: Progress | None,
        *,
        as_body: bool,
        give_up_s: float,
    ) -> _A:
        """Upload a file, or only name it where the service has it, and order what is to become of it.

        A large one goes in pieces, resumed where a line was cut; a small one as one body if it may.
        """
        sha256 = file_sha256(file)
        if as_body and file.stat().st_size <= uploads.PIECE_BYTES:
            return self._one(kind, self._send_body(path, file, order, sha256.digest(), progress))
        try:
            known = {"sha256": sha256.hexdigest()}
            return self._one(kind, self.request("POST", path, json={**order, **known}))
        except ApiError as error:
            if error.code != "CONTENT_UNKNOWN":
                raise
        upload = uploads.send(self, file, sha256.hexdigest(), progress, give_up_s=give_up_s)
        last = {**order, "upload": upload}
        made = uploads.patiently(lambda: self.request("POST", path, json=last), Patience(give_up_s))
        uploads.give_up(self, upload)
        return self._one(kind, made)

    def _send_body(
        self, path: str, file: Path, params: Mapping[str, Any], digest: bytes, progress: Progress | None
    ) -> httpx.Response:
        size = file.stat().st_size
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(size),
            "Repr-Digest": f"sha-256=:{base64.b64encode(digest).decode()}:",
        }
        return self.request(
            "PUT",
            path,
            params=params,
            headers=headers,
            content=_chunks(file, size, progress),
            timeout=_UPLOAD_TIMEOUT,
        )


def answer_timeout(deadline: float | None) -> httpx.Timeout:
    """Bound the wait for an answer by the deadline, with a little room for one that is on its way."""
    left = max(0.0, time_left(deadline)) + 0.5
    return httpx.Timeout(min(_ANSWER_S, left), connect=min(5.0, left))


def _is_local(url: str) -> bool:
    return httpx.URL(url).host in ("127.0.0.1", "localhost", "::1")


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Turn what a connection can suffer into UnreachableError."""
    try:
        yield
    except (httpx.TransportError, httpx.InvalidURL, httpx.StreamError) as error:
        raise UnreachableError(f"{url} does not answer: {str(error) or type(error).__name__}") from error


def file_sha256(path: Path) -> hashlib._Hash:
    """Hash a file piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256")


def _chunks(path: Path, size: int, progress: Progress | None) -> Iterator[bytes]:
    sent = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
            sent += len(chunk)
            if progress is not None:
                progress(sent, size)
