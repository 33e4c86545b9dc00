"""Files of uploads that come in pieces: how much is there, who writes, what it hashes to.

The offset of an upload is the synced size of its file, so nothing has to be kept in step with it. One writer
at a time holds the file's lock, which the kernel gives back when its process dies. A piece that is only good
as a whole (it has a checksum) is announced by a mark beside the file: whoever finds the mark cuts the file
back to it. Knows nothing of HTTP and of rows.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

SUFFIX, MARK_SUFFIX = ".part", ".base"
_HASHES_KEPT = 256
_TRIES, _TRY_AGAIN_S = 4, 0.02


class BusyError(Exception):
    """Somebody writes to this upload right now."""


class PartStore:
    """A folder of parts; ids are file names, so the caller gives only ids it made."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.root.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._hashes: OrderedDict[str, tuple[int, hashlib._Hash]] = OrderedDict()

    def path(self, upload_id: str) -> Path:
        """Return where the bytes of an upload lie."""
        return self.root / f"{upload_id}{SUFFIX}"

    def mark(self, upload_id: str) -> Path:
        """Return the file that tells from where on bytes do not count yet."""
        return self.root / f"{upload_id}{MARK_SUFFIX}"

    def offset(self, upload_id: str) -> int:
        """Return how many bytes are there for good; 0 where there is no file."""
        try:
            handle = os.open(self.path(upload_id), os.O_RDONLY)
        except FileNotFoundError:
            return 0
        try:
            base = _read_mark(self.mark(upload_id))
            os.fsync(handle)
            size = os.fstat(handle).st_size
        finally:
            os.close(handle)
        return size if base is None else min(base, size)

    def open(self, upload_id: str) -> Part:
        """Open for writing, alone; close it. Raises BusyError."""
        handle = os.open(self.path(upload_id), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock(handle)
            if not _is_at(handle, self.path(upload_id)):
                raise BusyError
            base = _read_mark(self.mark(upload_id))
            if base is not None:
                if base < os.fstat(handle).st_size:
                    os.ftruncate(handle, base)
                os.fsync(handle)
                self.mark(upload_id).unlink(missing_ok=True)
            return Part(self, upload_id, handle)
        except BlockingIOError as error:
            os.close(handle)
            raise BusyError from error
        except BaseException:
            os.close(handle)
            raise

    def is_busy(self, upload_id: str) -> bool:
        """Tell whether somebody writes to an upload."""
        try:
            handle = os.open(self.path(upload_id), os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    def remove(self, upload_id: str) -> None:
        """Remove what there is of an upload."""
        self.path(upload_id).unlink(missing_ok=True)
        self.mark(upload_id).unlink(missing_ok=True)
        _new(self.mark(upload_id)).unlink(missing_ok=True)
        with self._lock:
            self._hashes.pop(upload_id, None)

    def ids(self) -> Iterator[str]:
        """Give the ids of which there are files."""
        yield from sorted({path.name.partition(".")[0] for path in self.root.iterdir()})

    def _take_hash(self, upload_id: str, size_bytes: int) -> hashlib._Hash | None:
        with self._lock:
            kept = self._hashes.pop(upload_id, None)
        if kept is not None and kept[0] == size_bytes:
            return kept[1]
        return hashlib.sha256() if size_bytes == 0 else None

    def _keep_hash(self, upload_id: str, size_bytes: int, digest: hashlib._Hash | None) -> None:
        if digest is None:
            return
        with self._lock:
            self._hashes[upload_id] = (size_bytes, digest)
            while len(self._hashes) > _HASHES_KEPT:
                self._hashes.popitem(last=False)


class Part:
    """The bytes of an upload, held by its one writer; `offset` is how many there are."""

    def __init__(self, store: PartStore, upload_id: str, handle: int) -> None:
        self._store = store
        self._id = upload_id
        self._handle = handle
        self.offset = os.lseek(handle, 0, os.SEEK_END)
        # None where this process did not see the bytes come in: they are read once, at the end.
        self._hash = store._take_hash(upload_id, self.offset)
        self._base: tuple[int, hashlib._Hash | None] | None = None

    @property
    def path(self) -> Path:
        """Where the bytes lie."""
        return self._store.path(self._id)

    def begin(self, *, whole: bool) -> None:
        """Begin a piece; with `whole` it does not count before `accept`, whatever happens in between."""
        self._base = (self.offset, None if self._hash is None else self._hash.copy())
        if whole:
            _write_mark(self._store.mark(self._id), self.offset)

    def write(self, data: bytes) -> None:
        """Append bytes; raises OSError, of which nothing stays."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._handle, view) :]
        except OSError:
            self._cut(self.offset)
            raise
        self.offset += len(data)
        if self._hash is not None:
            self._hash.update(data)

    def accept(self) -> None:
        """Let what was written since `begin` count, once it is on the disk."""
        os.fsync(self._handle)
        self._store.mark(self._id).unlink(missing_ok=True)

    def reject(self) -> None:
        """Forget what was written since `begin`."""
        assert self._base is not None
        self.offset, self._hash = self._base
        self._cut(self.offset)
        os.fsync(self._handle)
        self._store.mark(self._id).unlink(missing_ok=True)

    def restart(self) -> None:
        """Forget all of it."""
        self._cut(0)
        self.offset, self._hash = 0, hashlib.sha256()
        os.fsync(self._handle)

    def sha256(self) -> str:
        """Return the digest of all that is there, in hex; reads it again if this process did not see it."""
        if self._hash is None:
            self._hash = hashlib.sha256()
            with self.path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    self._hash.update(chunk)
        return self._hash.hexdigest()

    def close(self, *, forget: bool = False) -> None:
        """Sync and let go; with `forget` nothing more will come."""
        try:
            with suppress(OSError):
                os.fsync(self._handle)
            if not forget:
                self._store._keep_hash(self._id, self.offset, self._hash)
        finally:
            os.close(self._handle)

    def _cut(self, size_bytes: int) -> None:
        os.ftruncate(self._handle, size_bytes)
        os.lseek(self._handle, size_bytes, os.SEEK_SET)


def _lock(handle: int) -> None:
    """Take a file's lock; raises BlockingIOError. `is_busy` holds it for a moment, which is waited for."""
    for _ in range(_TRIES - 1):
        with suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_TRY_AGAIN_S)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_at(handle: int, path: Path) -> bool:
    """Tell whether an open file still has its name: it was not moved or removed before it was locked."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _new(mark: Path) -> Path:
    return mark.with_suffix(f"{MARK_SUFFIX}.new")


def _read_mark(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii")
    except FileNotFoundError:
        return None
    return int(text) if text.isdigit() else 0


def _write_mark(path: Path, offset: int) -> None:
    """Write by rename: a mark is there as a whole or not at all."""
    temporary = _new(path)
    with temporary.open("w", encoding="ascii") as file:
        file.write(str(offset))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
