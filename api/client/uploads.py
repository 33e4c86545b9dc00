"""Send an archive so that a cut line, or a service that restarts, costs only what was on its way.

Speaks tus 1.0 (https://tus.io/protocols/resumable-upload) through a client's requests. It knows nothing of
what becomes of the bytes.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import httpx

from api.client.errors import ApiError, ClientError
from api.client.patience import GIVE_UP_S, Patience

# One request carries so much: proxies bound bodies, and a progress bar wants news.
PIECE_BYTES = 16 << 20
_CHUNK_BYTES = 1 << 18
_VERSION = {"Tus-Resumable": "1.0.0"}
_TIMEOUT = httpx.Timeout(120.0, connect=5.0)
_GONE = frozenset({404, 410})
# The place was taken, the offset was another, the bytes did not fit: asking for the offset helps.
_AGAIN = frozenset({409, 423, 460})
_BEGUN_ANEW = 3

Progress = Callable[[int, int], None]


class Requests(Protocol):
    """Whoever can send a request to the service."""

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        content: Iterator[bytes] | None = None,
        timeout: httpx.Timeout,
    ) -> httpx.Response:
        """Return a 2xx answer, or raise ClientError."""


def send(
    service: Requests,
    archive: Path,
    sha256: str,
    progress: Progress | None = None,
    *,
    give_up_s: float = GIVE_UP_S,
    piece_bytes: int = PIECE_BYTES,
) -> str:
    """Upload a file in pieces and return the id of the upload, which is whole and has this sha256 (hex).

    Goes on where it was cut for as long as the service was heard of in the last `give_up_s` seconds. Raises
    ApiError for what it refuses, UnreachableError where it stays away.
    """
    size = archive.stat().st_size
    headers = {"Upload-Length": str(size), "Upload-Metadata": _metadata(archive.name, sha256)}
    for attempt in range(_BEGUN_ANEW):
        answer = patiently(lambda: _ask(service, "POST", "/v1/uploads", headers), Patience(give_up_s))
        path = answer.headers["Location"]
        try:
            _send_all(service, path, archive, size, progress, Patience(give_up_s), piece_bytes)
        except ApiError as error:
            if error.status not in _GONE or attempt == _BEGUN_ANEW - 1:
                raise
        else:
            break
    return str(path).rpartition("/")[2]


def give_up(service: Requests, upload_id: str) -> None:
    """Tell the service that an upload is not needed any more; it goes by itself if this does not arrive."""
    with suppress(ClientError):
        _ask(service, "DELETE", f"/v1/uploads/{upload_id}", {})


def _send_all(
    service: Requests,
    path: str,
    archive: Path,
    size: int,
    progress: Progress | None,
    patience: Patience,
    piece_bytes: int,
) -> None:
    offset = 0
    known = True
    while offset < size or not known:
        try:
            if not known:
                offset = int(_ask(service, "HEAD", path, {}).headers["Upload-Offset"])
                known = True
                continue
            answer = _send_piece(service, path, archive, offset, min(piece_bytes, size - offset), progress)
            offset = int(answer.headers["Upload-Offset"])
            patience.renew()
        except ApiError as error:
            known = False
            if patience.is_over or not _may_go_on(error):
                raise
            patience.pause()
        except ClientError:
            known = False
            if patience.is_over:
                raise
            patience.pause()
    if progress is not None:
        progress(size, size)


def _send_piece(
    service: Requests, path: str, archive: Path, offset: int, length: int, progress: Progress | None
) -> httpx.Response:
    headers = {
        "Upload-Offset": str(offset),
        "Content-Type": "application/offset+octet-stream",
        "Content-Length": str(length),
    }
    return _ask(service, "PATCH", path, headers, _read(archive, offset, length, progress))


def _read(path: Path, offset: int, length: int, progress: Progress | None) -> Iterator[bytes]:
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(offset)
        left = length
        while left and (chunk := file.read(min(left, _CHUNK_BYTES))):
            yield chunk
            left -= len(chunk)
            if progress is not None:
                progress(offset + length - left, size)


def _ask(
    service: Requests,
    method: str,
    path: str,
    headers: Mapping[str, str],
    content: Iterator[bytes] | None = None,
) -> httpx.Response:
    return service.request(method, path, headers={**_VERSION, **headers}, content=content, timeout=_TIMEOUT)


def patiently(ask: Callable[[], httpx.Response], patience: Patience) -> httpx.Response:
    """Ask until there is an answer or the patience is over, then raise what stood in its way."""
    answers: list[httpx.Response] = []
    while not answers:
        with patience.with_failures():
            answers.append(ask())
        if not answers:
            patience.pause()
    return answers[0]


def _may_go_on(error: ApiError) -> bool:
    return error.status >= 500 and error.code != "STORAGE_FULL" or error.status in _AGAIN | {429}


def _metadata(name: str, sha256: str) -> str:
    pairs = {"filename": name, "sha256": sha256}
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in pairs.items())
