"""Send a file: named where the service has it, as one body where it is small, in resumable pieces else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from api.client import uploads
from api.client.errors import ApiError
from api.client.patience import Patience
from api.client.steps import A, Piece, Plan, Progress, Work, ask, one, parsed

_UPLOAD_TIMEOUT = httpx.Timeout(600.0, connect=5.0)


def send_file(
    kind: type[A],
    path: str,
    file: Path,
    order: Mapping[str, Any],
    progress: Progress | None,
    *,
    as_body: bool,
    give_up_s: float,
) -> Plan[A]:
    """Upload a file, or only name it where the service has it, and order what is to become of it.

    A large one goes in pieces, resumed where a line was cut; a small one as one body if it may.
    """
    sha256 = yield Work(lambda: file_sha256(file))
    if as_body and file.stat().st_size <= uploads.PIECE_BYTES:
        return parsed(kind, (yield from _send_body(path, file, order, sha256.digest(), progress)))
    try:
        return (yield from one(kind, "POST", path, json={**order, "sha256": sha256.hexdigest()}))
    except ApiError as error:
        if error.code != "CONTENT_UNKNOWN":
            raise
    upload = yield from uploads.sending(file, sha256.hexdigest(), progress, give_up_s=give_up_s)
    last = {**order, "upload": upload}
    made = yield from uploads.patiently(lambda: ask("POST", path, json=last), Patience(give_up_s))
    yield from uploads.giving_up(upload)
    return parsed(kind, made)


def _send_body(
    path: str, file: Path, params: Mapping[str, Any], digest: bytes, progress: Progress | None
) -> Plan[httpx.Response]:
    size = file.stat().st_size
    headers = {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(size),
        "Repr-Digest": f"sha-256=:{base64.b64encode(digest).decode()}:",
    }
    content = Piece(file, 0, size, progress)
    return (
        yield from ask(
            "PUT", path, params=dict(params), headers=headers, content=content, timeout=_UPLOAD_TIMEOUT
        )
    )


def file_sha256(path: Path) -> hashlib._Hash:
    """Hash a file piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256")
