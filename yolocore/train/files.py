"""Files that appear whole or not at all: written beside their place, flushed to disk, renamed.

It must not know what is in them.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
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


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder to fill: it takes the place of `folder` at the end, or is deleted if an error comes."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    temporary.mkdir()
    try:
        yield temporary
        if folder.exists():
            shutil.rmtree(folder)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def free_path(path: Path) -> Path:
    """Return the path, or if something is there, the first free one with 2, 3, ... after its name.

    Files keep their suffix: a.txt, a2.txt; folders have none: v1.0, v1.02.
    """
    if not os.path.lexists(path):
        return path
    suffix = path.suffix if path.is_file() else ""
    stem = path.name.removesuffix(suffix)
    candidates = (path.with_name(f"{stem}{number}{suffix}") for number in count(2))
    return next(candidate for candidate in candidates if not os.path.lexists(candidate))


def claim_folder(path: Path) -> Path:
    """Make the next free folder and return it; of several processes that ask at once, each gets its own."""
    while True:
        with suppress(FileExistsError):
            folder = free_path(path)
            folder.mkdir(parents=True)
            return folder


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
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink(missing_ok=True)


def describe(path: Path) -> Written:
    """Hash a file that somebody else wrote."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Written(path, digest, path.stat().st_size)
