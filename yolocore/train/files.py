"""Files that appear whole or not at all: written beside their place, flushed to disk, renamed.

It must not know what is in them.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from yolocore.errors import DiskFullError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, the user's share of it, the size of a file


@dataclass(frozen=True)
class Written:
    """A file that lies complete on disk."""

    path: Path
    sha256: str
    size_bytes: int


@contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """Turn the system's "no space left" and its like into DiskFullError with the path."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise disk_full(error, place=str(path)) from error
        raise


def disk_full(error: OSError, place: str | None) -> DiskFullError:
    """Return the named error for one of the system's errors in FULL."""
    return DiskFullError(f"{place or 'a file'} cannot be written: {error.strerror}", place=place)


def publish(path: Path, data: bytes | memoryview, *, durable: bool = True) -> Written:
    """Write a file by temporary name, fsync (if `durable`) and rename; raises DiskFullError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with naming_full_disk(path):
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            temporary.replace(path)
            if durable:
                sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return Written(path, hashlib.sha256(data).hexdigest(), len(data))


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Delete what writers left in a folder when they were killed; nobody else may be writing there."""
    for left in folder.glob(".*.part"):
        left.unlink(missing_ok=True)


def describe(path: Path) -> Written:
    """Hash a file that somebody else wrote."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Written(path, digest, path.stat().st_size)
