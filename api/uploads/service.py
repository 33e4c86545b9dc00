"""What can be done with uploads that come in pieces: begin one, go on with it, end it, use what it became.

The order of writing makes each step safe to be cut off: bytes are synced before they count, the digest is in
the book before the file is moved among the contents, and whoever meets an upload in between finishes it.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request

from api.access.principal import owner_filter
from api.domain.blobs import Blob, BlobStore
from api.domain.clock import SYSTEM_CLOCK, Clock
from api.domain.errors import NotFound
from api.domain.records import Principal
from api.domain.settings import Settings
from api.domain.uploads import Upload, UploadBook
from api.errors import (
    ApiError,
    ConflictError,
    NotFoundError,
    StorageFullError,
    TooLargeError,
    UnprocessableError,
    is_full,
)
from api.uploads.parts import BusyError, Part, PartStore
from api.uploads.receive import blocks_of, check_declared, declared_length, drain, fill
from api.uploads.room import Room


@dataclass(frozen=True)
class Checksum:
    """What the bytes of one piece hash to, by an algorithm hashlib knows."""

    algorithm: str
    digest: bytes


class UploadService:
    """Uploads as one caller may see them."""

    def __init__(
        self,
        book: UploadBook,
        parts: PartStore,
        blobs: BlobStore,
        settings: Settings,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._book = book
        self._parts = parts
        self._blobs = blobs
        self._settings = settings
        self._clock = clock
        self.room = Room(parts.root, settings.low_water_bytes, settings.low_water_share)

    def create(self, caller: Principal, size_bytes: int, metadata: Mapping[str, str]) -> Upload:
        """Begin an upload; raises TooLargeError, StorageFullError, Conflict QUOTA_EXCEEDED."""
        if size_bytes > self._settings.max_upload_bytes:
            raise _too_large(self._settings.max_upload_bytes)
        self.room.check(size_bytes)
        return self._book.create(
            caller.id,
            size_bytes=size_bytes,
            metadata=metadata,
            expires_s=self._settings.upload_expires_s,
            max_owner_bytes=self._settings.max_dataset_bytes_per_owner,
        )

    def get(self, caller: Principal, upload_id: str) -> Upload:
        """Return an upload; raises NotFound, ApiError 410 where its time is over."""
        upload = self._book.get(upload_id, owner_filter(caller))
        if upload.expires_at < self._clock.wall():
            raise ApiError("UPLOAD_EXPIRED", "the upload stood still for too long; begin anew", status=410)
        return self._settle(upload)

    def offset(self, upload: Upload) -> int:
        """Return how many bytes are there for good."""
        return self._parts.offset(upload.id) if upload.sha256 is None else upload.size_bytes

    def delete(self, caller: Principal, upload_id: str) -> None:
        """End an upload and free its bytes; raises NotFound, ApiError 423 while it is written to."""
        upload = self._book.get(upload_id, owner_filter(caller))
        if self._parts.is_busy(upload.id):
            raise _busy()
        self._book.delete(upload.id)
        self._parts.remove(upload.id)

    def content(self, caller: Principal, upload_id: str) -> Blob:
        """Return the content of a finished upload; raises NotFound, ConflictError UPLOAD_UNFINISHED."""
        upload = self.get(caller, upload_id)
        if upload.finished_at is None or upload.sha256 is None:
            there = self._parts.offset(upload.id)
            raise ConflictError(
                "UPLOAD_UNFINISHED", f"{there} of {upload.size_bytes} bytes of the upload are there"
            )
        if not self._blobs.has(upload.sha256):
            raise NotFoundError("UPLOAD_NOT_FOUND", "the content of this upload is gone")
        return Blob(upload.sha256, upload.size_bytes)

    def own_content(self, caller: Principal, sha256: str) -> Blob:
        """Return a content the caller has sent before; raises NotFoundError CONTENT_UNKNOWN."""
        size = self._book.own_content(caller.id, sha256)
        if size is None or not self._blobs.has(sha256):
            raise NotFoundError("CONTENT_UNKNOWN", "you have no archive of this sha256; upload it")
        return Blob(sha256, size)

    def check_quota(self, caller: Principal, size_bytes: int, sha256: str | None) -> None:
        """Raise Conflict QUOTA_EXCEEDED where so many bytes more are too many for the caller."""
        limit = self._settings.max_dataset_bytes_per_owner
        self._book.check_quota(caller.id, size_bytes, limit, sha256=sha256)

    async def append(
        self, request: Request, upload: Upload, offset: int, checksum: Checksum | None
    ) -> Upload:
        """Receive the body as the bytes from `offset` on; finishes the upload with its last byte.

        What came before a cut line stays, unless a checksum was to tell whether it is right. Raises
        ConflictError for another offset than the next, TooLargeError, ApiError 423 and 460,
        UnprocessableError where the whole is not what its metadata said, ClientDisconnect.
        """
        if upload.sha256 is not None:
            await check_declared(request, lambda: _check_offset(offset, upload.size_bytes))
            return upload
        part = await asyncio.to_thread(self._open, upload.id)
        finished = False
        try:
            left = upload.size_bytes - part.offset
            await check_declared(request, lambda: self._check(part, offset, left, declared_length(request)))
            await self._receive(request, part, left, checksum)
            if part.offset == upload.size_bytes:
                upload = await asyncio.to_thread(self._finish, upload, part)
                finished = True
            else:
                upload = await asyncio.to_thread(self._renew, upload)
        except OSError as error:
            if not is_full(error):
                raise
            await drain(request)
            raise StorageFullError from error
        finally:
            await asyncio.shield(asyncio.to_thread(part.close, forget=finished))
        return upload

    def _open(self, upload_id: str) -> Part:
        try:
            return self._parts.open(upload_id)
        except BusyError as error:
            raise _busy() from error

    def _check(self, part: Part, offset: int, left: int, declared: int | None) -> None:
        _check_offset(offset, part.offset)
        if declared is not None and declared > left:
            raise _over(left)
        self.room.check(declared or 0)

    async def _receive(self, request: Request, part: Part, left: int, checksum: Checksum | None) -> None:
        digest = None if checksum is None else hashlib.new(checksum.algorithm)
        await asyncio.to_thread(part.begin, whole=checksum is not None)

        def write(block: bytes) -> None:
            self.room.check(len(block))
            part.write(block)
            if digest is not None:
                digest.update(block)

        try:
            await fill(write, blocks_of(request, left, keep_cut=checksum is None))
            if digest is not None and checksum is not None and digest.digest() != checksum.digest:
                raise ApiError("CHECKSUM_MISMATCH", "the piece is not what its checksum says", status=460)
        except (ApiError, ClientDisconnect, OSError) as error:
            if checksum is not None or isinstance(error, TooLargeError):
                await asyncio.to_thread(part.reject)
            if isinstance(error, ApiError):
                await drain(request)
            raise
        await asyncio.to_thread(part.accept)

    def _renew(self, upload: Upload) -> Upload:
        """Let an upload that goes on live longer; written now and then only."""
        now = self._clock.wall()
        until = now + self._settings.upload_expires_s
        if until - upload.expires_at > self._settings.upload_expires_s / 10:
            self._book.renew(upload.id, until)
        return self._book.get(upload.id, None)

    def _finish(self, upload: Upload, part: Part) -> Upload:
        sha256 = part.sha256()
        expected = upload.metadata.get("sha256")
        if expected is not None and expected.lower() != sha256:
            part.restart()
            place = {"pointer": "Upload-Metadata", "message": f"what came has the sha256 {sha256}"}
            raise UnprocessableError(
                "DIGEST_MISMATCH", "the upload is not what its sha256 says; begin anew", errors=[place]
            )
        self._book.note_digest(upload.id, sha256)
        return self._settle(self._book.get(upload.id, None))

    def _settle(self, upload: Upload) -> Upload:
        """Store the content of an upload that is whole; does nothing to any other."""
        if upload.sha256 is None or upload.finished_at is not None:
            return upload
        try:
            _store(self._parts, self._blobs, upload)
        except FileNotFoundError as error:
            if not self._blobs.has(upload.sha256):
                self._book.delete(upload.id)
                raise NotFound("the bytes of this upload are gone", code="UPLOAD_NOT_FOUND") from error
        self._parts.remove(upload.id)
        self._book.finish(upload.id)
        return self._book.get(upload.id, None)


def _store(parts: PartStore, blobs: BlobStore, upload: Upload) -> None:
    """Move a whole part among the contents; a copy only where they lie on another file system."""
    assert upload.sha256 is not None
    path = parts.path(upload.id)
    try:
        blobs.publish(path, upload.sha256)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        blobs.put_file(path)


def _check_offset(stated: int, there: int) -> None:
    if stated != there:
        raise ConflictError(
            "OFFSET_MISMATCH",
            f"the upload goes on at {there}, not at {stated}",
            headers={"Upload-Offset": str(there)},
        )


def _busy() -> ApiError:
    return ApiError("UPLOAD_BUSY", "another request writes to this upload; try again", status=423)


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(
        "CONTENT_TOO_LARGE",
        f"an archive may have {limit} bytes at most",
        headers={"Tus-Max-Size": str(limit)},
    )


def _over(left: int) -> TooLargeError:
    return TooLargeError("CONTENT_TOO_LARGE", f"only {left} bytes of this upload are missing")
