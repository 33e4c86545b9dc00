"""Uploads that can be resumed: tus 1.0, with creation (and upload), termination, expiration and checksum.

Only the protocol is here: headers in, headers out. https://tus.io/protocols/resumable-upload
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Coroutine
from email.utils import formatdate
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute

from api.access.principal import Caller
from api.domain.uploads import Upload
from api.errors import ApiError, BadRequestError, PreconditionFailedError, UnsupportedMediaError
from api.services import Service
from api.uploads.receive import drain
from api.uploads.service import Checksum, UploadService

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,termination,expiration,checksum"
ALGORITHMS = ("sha1", "sha256")
CONTENT_TYPE = "application/offset+octet-stream"
MAX_METADATA = 8192
_MAX_DIGITS = 18


class TusRoute(APIRoute):
    """Asks for the version of the protocol, and says it with every answer."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the handler."""
        handle = super().get_route_handler()

        async def versioned(request: Request) -> Response:
            try:
                if request.method != "OPTIONS" and request.headers.get("tus-resumable") != VERSION:
                    raise PreconditionFailedError(
                        "TUS_VERSION", f"send Tus-Resumable: {VERSION}", headers={"Tus-Version": VERSION}
                    )
                response = await handle(request)
            except ApiError as error:
                error.headers.setdefault("Tus-Resumable", VERSION)
                raise
            response.headers["Tus-Resumable"] = VERSION
            return response

        return versioned


router = APIRouter(prefix="/v1/uploads", tags=["uploads"], route_class=TusRoute)


def _uploads(request: Request) -> UploadService:
    found = request.app.state.uploads
    assert isinstance(found, UploadService)
    return found


Uploads = Annotated[UploadService, Depends(_uploads)]
"""The uploads that come in pieces."""


def _header(name: str, description: str, *, required: bool = True) -> dict[str, Any]:
    schema = {"type": "string"}
    return {"name": name, "in": "header", "required": required, "description": description, "schema": schema}


_TUS = _header("Tus-Resumable", f"The version of the protocol: {VERSION}.")
_SUM = _header("Upload-Checksum", "sha1 or sha256, a blank, base64: of this piece.", required=False)
_BODY = {"content": {CONTENT_TYPE: {"schema": {"type": "string", "format": "binary"}}}}
_CREATE: dict[str, Any] = {
    "parameters": [
        _TUS,
        _header("Upload-Length", "Bytes of the whole upload."),
        _header(
            "Upload-Metadata",
            "Pairs of key and base64 value with commas: filename, name; sha256 in hex is checked at the end.",
            required=False,
        ),
        _SUM,
    ],
    "requestBody": {"required": False, "description": "The first bytes, if any.", **_BODY},
}
_PATCH: dict[str, Any] = {
    "parameters": [_TUS, _header("Upload-Offset", "How many bytes are there already."), _SUM],
    "requestBody": {"required": True, "description": "The bytes that follow.", **_BODY},
}
_ONLY_TUS: dict[str, Any] = {"parameters": [_TUS]}


@router.options("", status_code=204, summary="Show what uploads can do")
async def options(service: Service) -> Response:
    """Tell version, extensions and bounds."""
    return Response(
        status_code=204,
        headers={
            "Tus-Version": VERSION,
            "Tus-Extension": EXTENSIONS,
            "Tus-Max-Size": str(service.settings.max_upload_bytes),
            "Tus-Checksum-Algorithm": ",".join(ALGORITHMS),
        },
    )


@router.post("", status_code=201, openapi_extra=_CREATE, summary="Begin an upload")
async def create(request: Request, caller: Caller, uploads: Uploads) -> Response:
    """Make an upload of a stated length; a body is taken as its first bytes."""
    try:
        size = _length(request)
        metadata = parse_metadata(request.headers.get("upload-metadata"))
        with_body = _has_body(request)
        if with_body:
            _check_type(request)
        checksum = parse_checksum(request.headers.get("upload-checksum"))
        upload = await anyio.to_thread.run_sync(lambda: uploads.create(caller, size, metadata))
    except ApiError:
        await drain(request)
        raise
    if with_body or size == 0:
        upload = await uploads.append(request, upload, 0, checksum)
    headers = await _headers(uploads, upload)
    return Response(status_code=201, headers=headers | {"Location": f"/v1/uploads/{upload.id}"})


@router.head("/{upload_id}", openapi_extra=_ONLY_TUS, summary="Ask how much of an upload is there")
async def show(upload_id: str, caller: Caller, uploads: Uploads) -> Response:
    """Tell offset, length and metadata; 410 for one whose time is over."""
    upload = await anyio.to_thread.run_sync(lambda: uploads.get(caller, upload_id))
    headers = await _headers(uploads, upload)
    headers["Upload-Length"] = str(upload.size_bytes)
    if upload.metadata:
        headers["Upload-Metadata"] = format_metadata(dict(upload.metadata))
    return Response(status_code=200, headers=headers | {"Cache-Control": "no-store"})


@router.patch("/{upload_id}", status_code=204, openapi_extra=_PATCH, summary="Go on with an upload")
async def append(request: Request, upload_id: str, caller: Caller, uploads: Uploads) -> Response:
    """Take the body as the bytes from the offset on.

    409 for another offset than the next one, 415 for another content type, 423 while another request writes,
    460 where the piece is not what its checksum says: then none of it counts.
    """
    try:
        upload = await anyio.to_thread.run_sync(lambda: uploads.get(caller, upload_id))
        _check_type(request)
        offset = _number(request, "Upload-Offset")
        checksum = parse_checksum(request.headers.get("upload-checksum"))
    except ApiError:
        await drain(request)
        raise
    upload = await uploads.append(request, upload, offset, checksum)
    return Response(status_code=204, headers=await _headers(uploads, upload))


@router.delete("/{upload_id}", status_code=204, openapi_extra=_ONLY_TUS, summary="Give an upload up")
async def delete(upload_id: str, caller: Caller, uploads: Uploads) -> Response:
    """Remove what came of it; a dataset that was made of it stays."""
    await anyio.to_thread.run_sync(lambda: uploads.delete(caller, upload_id))
    return Response(status_code=204)


async def _headers(uploads: UploadService, upload: Upload) -> dict[str, str]:
    offset = await anyio.to_thread.run_sync(lambda: uploads.offset(upload))
    return {"Upload-Offset": str(offset), "Upload-Expires": formatdate(upload.expires_at, usegmt=True)}


def _has_body(request: Request) -> bool:
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


def _check_type(request: Request) -> None:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != CONTENT_TYPE:
        raise UnsupportedMediaError("UNSUPPORTED_MEDIA_TYPE", f"send Content-Type: {CONTENT_TYPE}")


def _length(request: Request) -> int:
    if "upload-defer-length" in request.headers:
        raise _unreadable("Upload-Defer-Length", "say the length at once, as Upload-Length")
    return _number(request, "Upload-Length")


def _number(request: Request, name: str) -> int:
    text = request.headers.get(name.lower())
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise _unreadable(name, "expected a number of bytes", text)
    return int(text)


def parse_metadata(header: str | None) -> dict[str, str]:
    """Read Upload-Metadata: pairs `key base64` with commas; raises BadRequestError."""
    found: dict[str, str] = {}
    if header is None or not header.strip():
        return found
    if len(header) > MAX_METADATA:
        raise _unreadable("Upload-Metadata", f"longer than {MAX_METADATA} characters")
    for pair in header.split(","):
        key, _, value = pair.strip().partition(" ")
        if not key or not key.isascii() or key in found:
            raise _unreadable("Upload-Metadata", "keys are ASCII and unique", pair)
        try:
            found[key] = base64.b64decode(value.strip(), validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise _unreadable("Upload-Metadata", "values are base64 of UTF-8", pair) from error
        if "\0" in found[key]:
            raise _unreadable("Upload-Metadata", "values have no null characters", pair)
    return found


def format_metadata(metadata: dict[str, str]) -> str:
    """Return the header that `parse_metadata` reads."""
    return ",".join(
        f"{key} {base64.b64encode(value.encode()).decode()}".rstrip() for key, value in metadata.items()
    )


def parse_checksum(header: str | None) -> Checksum | None:
    """Read Upload-Checksum, `algorithm base64`; raises BadRequestError, also for an unknown algorithm."""
    if header is None:
        return None
    algorithm, _, text = header.strip().partition(" ")
    if algorithm.lower() not in ALGORITHMS:
        raise _unreadable("Upload-Checksum", f"one of {', '.join(ALGORITHMS)} is known", algorithm)
    try:
        return Checksum(algorithm.lower(), base64.b64decode(text.strip(), validate=True))
    except binascii.Error as error:
        raise _unreadable("Upload-Checksum", "expected base64", text) from error


def _unreadable(name: str, message: str, value: str | None = None) -> BadRequestError:
    place = {"pointer": name, "message": message} | ({} if value is None else {"value": value[:200]})
    return BadRequestError("HEADER_UNREADABLE", f"{name}: {message}", errors=[place])
