"""Bytes by their content: a file is named by its sha256, written once, never changed.

Publishing is temporary file, fsync, rename, fsync of the folder; whoever reads sees all of a file or nothing.
Knows nothing of rows: what a blob means is said elsewhere, and only after the blob is there.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

_SHA256 = re.compile(r"[0-9a-f]{64}")
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Blob:
    """A stored content: its sha256 and size."""

    sha256: str
    size_bytes: int


class BlobWriter:
    """A file being received: hashed while written, published by `commit`, gone without it."""

    def __init__(self, store: BlobStore, path: Path) -> None:
        self._store = store
        self._path = path
        self._file: BinaryIO = path.open("xb")
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes; raises OSError when the disk is full."""
        self._file.write(data)
        self._hash.update(data)
        self.size_bytes += len(data)

    @property
    def sha256(self) -> str:
        """Digest of what was written so far, in hex."""
        return self._hash.hexdigest()

    def commit(self) -> Blob:
        """Publish what was written under its digest and return it; closes the writer."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._store.publish(self._path, self.sha256)
        return Blob(self.sha256, self.size_bytes)

    def abort(self) -> None:
        """Forget what was written; harmless after `commit`."""
        self._file.close()
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()


class BlobStore:
    """A folder of contents: `sha256/ab/abcd...`, with `tmp/` beside it for files on their way in."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images_root = root / "sha256"
        self._tmp = root / "tmp"
        self.images_root.mkdir(parents=True, exist_ok=True)
        self._tmp.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Return where a content lies or would lie; raises ValueError where the text is no sha256."""
        if _SHA256.fullmatch(sha256) is None:
            raise ValueError(f"not a sha256: {sha256[:80]!r}")
        return self.images_root / sha256[:2] / sha256

    def has(self, sha256: str) -> bool:
        """Tell whether a content is stored."""
        return self.path(sha256).is_file()

    def open_writer(self) -> BlobWriter:
        """Start receiving a content; use as a context manager, `commit` inside it."""
        return BlobWriter(self, self._tmp / f"{secrets.token_hex(16)}.part")

    def put_bytes(self, data: bytes) -> Blob:
        """Store a content that is in memory."""
        with self.open_writer() as writer:
            writer.write(data)
            return writer.commit()

    def put_file(self, source: Path) -> Blob:
        """Store a copy of a file."""
        with source.open("rb") as file, self.open_writer() as writer:
            while chunk := file.read(CHUNK_BYTES):
                writer.write(chunk)
            return writer.commit()

    def move_file(self, source: Path) -> Blob:
        """Store a file by moving it in, without a copy where it lies on the same file system."""
        if source.stat().st_dev != self._tmp.stat().st_dev:
            blob = self.put_file(source)
            source.unlink()
            return blob
        with source.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = os.fstat(file.fileno()).st_size
            os.fsync(file.fileno())
        self.publish(source, digest)
        return Blob(digest, size)

    def publish(self, temporary: Path, sha256: str) -> None:
        """Give a finished, synced file its name; one that is already there stays as it is."""
        target = self.path(sha256)
        if target.is_file():
            temporary.unlink()
            return
        with suppress(FileExistsError):
            target.parent.mkdir()
            # A folder that a power cut takes back takes what was synced in it along.
            _sync_folder(self.images_root)
        temporary.rename(target)
        _sync_folder(target.parent)

    @contextmanager
    def open(self, sha256: str) -> Iterator[BinaryIO]:
        """Open a content for reading; raises FileNotFoundError."""
        with self.path(sha256).open("rb") as file:
            yield file

    def read_bytes(self, sha256: str) -> bytes:
        """Return a whole content; for small ones."""
        return self.path(sha256).read_bytes()

    def drop_stale_parts(self, *, older_than: float) -> int:
        """Remove files on their way in that were last written before this wall time; returns how many."""
        stale = [part for part in self._tmp.glob("*.part") if _modified_at(part) < older_than]
        for part in stale:
            part.unlink(missing_ok=True)
        return len(stale)


def _modified_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
