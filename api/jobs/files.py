"""Send a file, or the range of it that was asked for, even while it still grows.

The size is taken once and the answer never runs over it. Ranges that cannot be read are ignored and only
single ranges are served, both as RFC 9110 (14.2) allows.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from api.errors import NotFoundError, RangeUnsatisfiableError

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_CHUNK_BYTES = 256 << 10


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return (start, end) in bytes, end excluded; None for the whole file.

    Raises RangeUnsatisfiableError where the range begins behind the end.
    """
    match = _RANGE.fullmatch(header.strip()) if header is not None else None
    if match is None or match[0] == "bytes=-":
        return None
    first, last = match[1], match[2]
    if first == "":
        start, end = max(0, size - int(last)), size
    else:
        start = int(first)
        end = min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= size:
        raise RangeUnsatisfiableError(
            "RANGE_UNSATISFIABLE",
            f"there are {size} bytes",
            headers={"Content-Range": f"bytes */{size}", "Accept-Ranges": "bytes"},
        )
    return start, end


async def send_file(
    request: Request, path: Path, *, media_type: str, etag: str | None = None, file_name: str | None = None
) -> Response:
    """Return the response for a file; raises NotFoundError where it is gone."""
    try:
        size = (await anyio.Path(path).stat()).st_size
    except FileNotFoundError as error:
        raise NotFoundError("FILE_GONE", "the file is not there any more") from error
    headers = {"Accept-Ranges": "bytes"}
    if etag is not None:
        headers["ETag"] = f'"{etag}"'
        headers["Cache-Control"] = "private, max-age=31536000, immutable"
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
    if file_name is not None:
        headers["Content-Disposition"] = f'{_disposition(media_type)}; filename="{_ascii(file_name)}"'
    span = parse_range(request.headers.get("range"), size) if _range_applies(request, etag) else None
    start, end = span or (0, size)
    headers["Content-Length"] = str(end - start)
    if span is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    return StreamingResponse(
        _chunks(path, start, end),
        status_code=200 if span is None else 206,
        headers=headers,
        media_type=media_type,
    )


def _range_applies(request: Request, etag: str | None) -> bool:
    condition = request.headers.get("if-range")
    return condition is None or (etag is not None and condition == f'"{etag}"')


def _disposition(media_type: str) -> str:
    """Only pictures and plain text are shown in the browser; everything else is saved."""
    return "inline" if media_type.startswith(("image/png", "image/jpeg", "text/plain")) else "attachment"


def _ascii(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)


async def _chunks(path: Path, start: int, end: int) -> AsyncIterator[bytes]:
    async with await anyio.open_file(path, "rb") as file:
        await file.seek(start)
        left = end - start
        while left > 0:
            chunk = await file.read(min(_CHUNK_BYTES, left))
            if not chunk:
                return
            left -= len(chunk)
            yield chunk
