"""Send an archive so that a cut line, or a service that restarts, costs only what was on its way.

Speaks tus 1.0 (https://tus.io/protocols/resumable-upload) through a client's requests. It knows nothing of
what becomes of the bytes.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import httpx

from api.client.driving import carry_out
from api.client.errors import ApiError, ClientError
from api.client.patience import GIVE_UP_S, Patience
from api.client.steps import Piece, Plan, Progress, Rest, ask

# One request carries so much: proxies bound bodies, and a progress bar wants news.
PIECE_BYTES = 16 << 20
_VERSION = {"Tus-Resumable": "1.0.0"}
_TIMEOUT = httpx.Timeout(120.0, connect=5.0)
_GONE = frozenset({404, 410})
# The place was taken, the offset was another, the bytes did not fit: asking for the offset helps.
_AGAIN = frozenset({409, 423, 460})
_BEGUN_ANEW = 3


class Requests(Protocol):
    """Whoever can send a request to the service."""

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
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
    """Carry out `sending` through a service's requests."""
    plan = sending(archive, sha256, progress, give_up_s=give_up_s, piece_bytes=piece_bytes)
    return carry_out(plan, service.request)


def sending(
    archive: Path,
    sha256: str,
    progress: Progress | None = None,
    *,
    give_up_s: float = GIVE_UP_S,
    piece_bytes: int = PIECE_BYTES,
) -> Plan[str]:
    """Upload a file in pieces and return the id of the upload, which is whole and has this sha256 (hex).

    Goes on where it was cut for as long as the service was heard of in the last `give_up_s` seconds. Raises
    ApiError for what it refuses, UnreachableError where it stays away.
    """
    size = archive.stat().st_size
    headers = {"Upload-Length": str(size), "Upload-Metadata": _metadata(archive.name, sha256)}
    for attempt in range(_BEGUN_ANEW):
        answer = yield from patiently(lambda: _ask("POST", "/v1/uploads", headers), Patience(give_up_s))
        path = answer.headers["Location"]
        try:
            yield from _send_all(path, archive, size, progress, Patience(give_up_s), piece_bytes)
        except ApiError as error:
            if error.status not in _GONE or attempt == _BEGUN_ANEW - 1:
                raise
        else:
            break
    return str(path).rpartition("/")[2]


def giving_up(upload_id: str) -> Plan[None]:
    """Tell the service that an upload is not needed any more; it goes by itself if this does not arrive."""
    with suppress(ClientError):
        yield from _ask("DELETE", f"/v1/uploads/{upload_id}", {})


def _send_all(
    path: str,
    archive: Path,
    size: int,
    progress: Progress | None,
    patience: Patience,
    piece_bytes: int,
) -> Plan[None]:
    offset = 0
    known = True
    while offset < size or not known:
        try:
            if not known:
                offset = int((yield from _ask("HEAD", path, {})).headers["Upload-Offset"])
                known = True
                continue
            piece = Piece(archive, offset, min(piece_bytes, size - offset), progress)
            answer = yield from _send_piece(path, piece)
            offset = int(answer.headers["Upload-Offset"])
            patience.renew()
        except ApiError as error:
            known = False
            if patience.is_over or not _may_go_on(error):
                raise
            yield Rest(patience.next_pause_s())
        except ClientError:
            known = False
            if patience.is_over:
                raise
            yield Rest(patience.next_pause_s())
    if progress is not None:
        progress(size, size)


def _send_piece(path: str, piece: Piece) -> Plan[httpx.Response]:
    headers = {
        "Upload-Offset": str(piece.offset),
        "Content-Type": "application/offset+octet-stream",
        "Content-Length": str(piece.length),
    }
    return (yield from _ask("PATCH", path, headers, piece))


def _ask(
    method: str, path: str, headers: Mapping[str, str], content: Piece | None = None
) -> Plan[httpx.Response]:
    given = {} if content is None else {"content": content}
    return (yield from ask(method, path, headers={**_VERSION, **headers}, timeout=_TIMEOUT, **given))


def patiently(asking: Callable[[], Plan[httpx.Response]], patience: Patience) -> Plan[httpx.Response]:
    """Ask until there is an answer or the patience is over, then raise what stood in its way."""
    answers: list[httpx.Response] = []
    while not answers:
        with patience.with_failures():
            answers.append((yield from asking()))
        if not answers:
            yield Rest(patience.next_pause_s())
    return answers[0]


def _may_go_on(error: ApiError) -> bool:
    return error.status >= 500 and error.code != "STORAGE_FULL" or error.status in _AGAIN | {429}


def _metadata(name: str, sha256: str) -> str:
    pairs = {"filename": name, "sha256": sha256}
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in pairs.items())
