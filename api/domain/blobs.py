"""Bytes by their content: a file is named by its sha256, written once, never changed.

Publishing is temporary file, fsync, rename, fsync of the folder; whoever reads sees all of a file or nothing.
Knows nothing of rows: what a blob means is said elsewhere, and only after the blob is there. Until it is
said, the age of the file protects it: storing a content, or asking for it, makes it young again, and
`remove` takes nothing young, not even where both happen at once.
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
_DOOMED = ".doomed"


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
        """Append bytes; raises OSError when the disk is full, after which only `abort` makes sense."""
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
        with suppress(OSError):
            # On a full disk the rest of the buffer cannot be written; nobody wants it any more.
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
        """Tell whether a content is stored; where it is, whoever asks may rely on it for a while."""
        return _renew(self.path(sha256))

    def open_writer(self) -> BlobWriter:
        """Start receiving a content; use as a context manager, `commit` inside it."""
        return BlobWriter(self, self._new_part())

    def _new_part(self) -> Path:
        return self._tmp / f"{secrets.token_hex(16)}.part"

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

    def link_file(self, source: Path) -> Blob:
        """Store a file that nobody writes to any more, where possible without needing room for it.

        `source` stays, as another name of the same bytes, or as it was where it lies on another file system.
        """
        temporary = self._new_part()
        try:
            os.link(source, temporary)
        except FileNotFoundError:
            raise
        except OSError:
            return self.put_file(source)
        try:
            with temporary.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                size = os.fstat(file.fileno()).st_size
                os.fsync(file.fileno())
            self.publish(temporary, digest)
        finally:
            temporary.unlink(missing_ok=True)
        return Blob(digest, size)

    def publish(self, temporary: Path, sha256: str) -> None:
        """Give a finished, synced file its name; one that is already there stays, and is young again."""
        target = self.path(sha256)
        if _renew(target):
            temporary.unlink()
            return
        os.utime(temporary)
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

    def stale_parts(self, *, older_than: float) -> list[Path]:
        """Return files on their way in or out that were last written before this wall time."""
        found = [*self._tmp.glob("*.part"), *self._tmp.glob(f"*{_DOOMED}")]
        return [path for path in found if _modified_at(path) < older_than]

    def drop_stale_parts(self, *, older_than: float) -> int:
        """Remove files on their way in that were last written before this wall time; returns how many.

        What a removal that was interrupted left is removed, or put back if somebody asked for it since.
        """
        for path in self._tmp.glob(f"*{_DOOMED}"):
            if _modified_at(path) >= older_than:
                self._put_back(path)
        stale = self.stale_parts(older_than=older_than)
        for part in stale:
            part.unlink(missing_ok=True)
        return len(stale)

    def shards(self) -> list[str]:
        """Return the names of the folders contents lie in: the first two digits of their sha256."""
        return sorted(path.name for path in self.images_root.iterdir() if path.is_dir())

    def old_contents(self, shard: str, *, older_than: float) -> list[Blob]:
        """Return the contents of a shard that were stored, and last asked for, before this wall time."""
        found = []
        with suppress(FileNotFoundError), os.scandir(self.images_root / shard) as entries:
            for entry in entries:
                if _SHA256.fullmatch(entry.name) is None:
                    continue
                with suppress(FileNotFoundError):
                    seen = entry.stat(follow_symlinks=False)
                    if seen.st_mtime < older_than:
                        found.append(Blob(entry.name, seen.st_size))
        return found

    def remove(self, sha256: str, *, older_than: float) -> int:
        """Remove a content that no row names; returns the bytes this freed.

        Nothing is removed that was stored, or asked for, at or after this wall time: the file is taken out of
        sight first and looked at then, so that nobody can come in between.
        """
        doomed = self._tmp / f"{sha256}{_DOOMED}"
        with suppress(FileNotFoundError):
            self.path(sha256).rename(doomed)
            seen = doomed.stat()
            if seen.st_mtime < older_than:
                doomed.unlink()
                # Bytes that have another name stay where they are.
                return seen.st_size if seen.st_nlink == 1 else 0
            self._put_back(doomed)
        return 0

    def _put_back(self, doomed: Path) -> None:
        target = self.path(doomed.name.removesuffix(_DOOMED))
        with suppress(FileNotFoundError):
            target.parent.mkdir(exist_ok=True)
            doomed.rename(target)


def _renew(path: Path) -> bool:
    """Make a file young, in one step with finding out whether it is there."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


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
