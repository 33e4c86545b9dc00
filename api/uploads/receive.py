"""Stream a body into the blob store: bounded memory, hashed on the way, nothing left of half a body.

The event loop only collects chunks; writing and hashing happen in a thread, one block at a time, while the
next block is received. It must not know what the bytes are for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from starlette.requests import ClientDisconnect, Request

from api.domain.blobs import Blob, BlobStore, BlobWriter
from api.domain.errors import BookError
from api.errors import (
    ApiError,
    BadRequestError,
    StorageFullError,
    TooLargeError,
    UnprocessableError,
    is_full,
)
from api.uploads.digests import sha256_of
from api.uploads.room import Room

BLOCK_BYTES = 1 << 20
DRAIN_BYTES = 16 << 20
# A body of which nothing comes for so long belongs to a client that went away without a word.
IDLE_S = 60.0
CheckContent = Callable[[str | None, int | None], None]


async def receive_blob(
    request: Request,
    blobs: BlobStore,
    *,
    room: Room,
    max_bytes: int,
    head_bytes: int,
    check_head: Callable[[bytes], None],
    check_content: CheckContent,
) -> Blob:
    """Receive the body and publish it; return its blob.

    `check_head` sees the first `head_bytes` bytes and raises to refuse them. `check_content` is given
    sha256 and size, in a thread: first as declared (None where they are not), then as they are, before
    anything is published; what it refuses, by an ApiError or BookError, leaves nothing behind.

    Raises TooLargeError over `max_bytes` whether or not the length was declared, UnprocessableError where
    a Repr-Digest does not fit, BadRequestError where fewer bytes came than declared, StorageFullError where
    the disk is full or would be left too full, ClientDisconnect where the client went away.
    """
    try:
        return await _receive(request, blobs, room, max_bytes, head_bytes, check_head, check_content)
    except OSError as error:
        if not is_full(error):
            raise
        await drain(request)
        raise StorageFullError from error


async def _receive(
    request: Request,
    blobs: BlobStore,
    room: Room,
    max_bytes: int,
    head_bytes: int,
    check_head: Callable[[bytes], None],
    check_content: CheckContent,
) -> Blob:
    declared = declared_length(request)
    expected = sha256_of(request.headers.get("repr-digest"))
    if declared is not None and declared > max_bytes:
        raise _too_large(max_bytes)
    await check_declared(request, lambda: room.check(declared or 0))
    with await asyncio.to_thread(blobs.open_writer) as writer:
        await check_declared(request, lambda: check_content(expected, declared))

        def write(block: bytes) -> None:
            room.check(len(block))
            writer.write(block)

        try:
            await fill(write, _checked(blocks_of(request, max_bytes), head_bytes, check_head))
        except ApiError:
            await drain(request)
            raise
        if declared is not None and writer.size_bytes != declared:
            raise BadRequestError("BODY_INCOMPLETE", f"{declared} bytes declared, {writer.size_bytes} came")
        if expected is not None and writer.sha256 != expected:
            place = {"pointer": "Repr-Digest", "message": f"what came has the sha256 {writer.sha256}"}
            raise UnprocessableError(
                "DIGEST_MISMATCH", "the body is not what the digest says", errors=[place]
            )
        await asyncio.to_thread(check_content, writer.sha256, writer.size_bytes)
        return await _commit(writer)


async def check_declared(request: Request, check: Callable[[], None]) -> None:
    """Run a check in a thread before the body is received; what it refuses the client learns unreset."""
    try:
        await asyncio.to_thread(check)
    except (ApiError, BookError):
        # Reading would tell a client that waits for leave to send to go on.
        if request.headers.get("expect", "").lower() != "100-continue":
            await drain(request)
        raise


async def _commit(writer: BlobWriter) -> Blob:
    """Publish in a thread; a client that goes away meanwhile must not leave the thread behind our back."""
    task = asyncio.create_task(asyncio.to_thread(writer.commit))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


async def fill(write: Callable[[bytes], None], blocks: AsyncIterator[bytes]) -> None:
    """Write block after block in a thread, receiving the next one meanwhile."""
    pending: asyncio.Task[None] | None = None
    try:
        async for block in blocks:
            if pending is not None:
                await pending
            pending = asyncio.create_task(asyncio.to_thread(write, block))
        if pending is not None:
            await pending
    finally:
        # The writer may not be closed under a thread that still writes.
        if pending is not None and not pending.done():
            await asyncio.wait([pending])


async def blocks_of(request: Request, max_bytes: int, *, keep_cut: bool = False) -> AsyncIterator[bytes]:
    """Give the body in blocks of at least BLOCK_BYTES, except the last; raises TooLargeError over the bound.

    With `keep_cut` what came before the client went away is given before ClientDisconnect is raised.
    """
    chunks: list[bytes] = []
    size = total = 0
    cut: ClientDisconnect | None = None
    try:
        async for chunk in _lively(request.stream(), IDLE_S):
            total += len(chunk)
            if total > max_bytes:
                raise _too_large(max_bytes)
            chunks.append(chunk)
            size += len(chunk)
            if size >= BLOCK_BYTES:
                # The pieces are let go before the block is written: only one copy of it is in memory.
                block, chunks, size = b"".join(chunks), [], 0
                yield block
    except ClientDisconnect as error:
        if not keep_cut:
            raise
        cut = error
    if size:
        yield b"".join(chunks)
    if cut is not None:
        raise cut


async def _lively(chunks: AsyncIterator[bytes], idle_s: float) -> AsyncIterator[bytes]:
    """Pass the chunks on; raises ClientDisconnect where none comes for `idle_s` seconds."""
    while True:
        try:
            async with asyncio.timeout(idle_s):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise ClientDisconnect from error
        yield chunk


async def _checked(
    blocks: AsyncIterator[bytes], head_bytes: int, check_head: Callable[[bytes], None]
) -> AsyncIterator[bytes]:
    """Pass the blocks on, once the first of them was looked at."""
    first = True
    async for block in blocks:
        if first:
            check_head(block[:head_bytes])
            first = False
        yield block
    if first:
        check_head(b"")


async def drain(request: Request) -> None:
    """Take a little more of a refused body, so that a client still sending reads the answer, not a reset."""
    left = DRAIN_BYTES
    try:
        async for chunk in request.stream():
            left -= len(chunk)
            if left <= 0:
                return
    except (ClientDisconnect, RuntimeError):
        return


def declared_length(request: Request) -> int | None:
    """Return the Content-Length; None where there is none that can be read."""
    text = request.headers.get("content-length")
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError("CONTENT_TOO_LARGE", f"an archive may have {limit} bytes at most")
