"""Files of a dataset on this machine: its manifest, its images, and a folder for what can be made from them.

Everything here can be rebuilt from blobs, so it is named by content and thrown away, least used first, when
it grows too large. Slots are processes that share it: who uses a folder holds a shared lock on it, who
removes one needs the whole lock. It must not know what the trainer puts into the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from api.domain.blobs import BlobStore

_LOG = structlog.get_logger(__name__)
GIB = 1 << 30
DEFAULT_MAX_BYTES = 50 * GIB
_LOCK = ".lock"
# Renamed before it is removed: nobody finds half a folder, and what a killed process left is known by it.
_DOOMED = ".doomed-"


class MissingDatasetError(Exception):
    """The manifest of a ready dataset is not in the blob store."""


@dataclass(frozen=True)
class DatasetFiles:
    """Absolute paths a child is given: images lie at `images_root`/<sha256[:2]>/<sha256>."""

    manifest: Path
    images_root: Path
    cache_dir: Path


class DatasetCache:
    """One folder per dataset content under `root`, shared by all slots of a machine.

    `max_bytes` None takes the default; what is in use may take more for as long as it is.
    """

    def __init__(self, root: Path, blobs: BlobStore, *, max_bytes: int | None = None) -> None:
        self._root = root
        self._blobs = blobs
        self._max_bytes = DEFAULT_MAX_BYTES if max_bytes is None else max_bytes

    @contextlib.contextmanager
    def hold(self, manifest_hash: str) -> Iterator[DatasetFiles]:
        """Return the files of a dataset; its folder stays until the end of the block, then counts as used.

        Raises MissingDatasetError if the manifest is gone, OSError where the folder cannot be made.
        """
        manifest = self._blobs.path(manifest_hash)
        if not manifest.is_file():
            raise MissingDatasetError(manifest_hash)
        self._root.mkdir(parents=True, exist_ok=True)
        folder = self._root / manifest_hash
        with _locked(self._lock_of(folder), fcntl.LOCK_SH):
            folder.mkdir(exist_ok=True)
            os.utime(folder)
            self.trim()
            yield DatasetFiles(manifest, self._blobs.images_root, folder)
            with contextlib.suppress(OSError):
                os.utime(folder)
        self.trim()

    def trim(self) -> list[str]:
        """Remove the least recently used folders nobody holds until the rest fits; return their names."""
        removed = []
        try:
            folders = [path for path in self._root.iterdir() if path.is_dir()]
            for path in folders:
                if path.name.startswith(_DOOMED):
                    shutil.rmtree(path, ignore_errors=True)
            sizes = {path: _size_bytes(path) for path in folders if not path.name.startswith(".")}
            total = sum(sizes.values())
            for folder in sorted(sizes, key=_used_at):
                if total <= self._max_bytes:
                    break
                if self._remove(folder):
                    total -= sizes[folder]
                    removed.append(folder.name)
        except OSError as error:
            # No run fails for want of tidiness.
            _LOG.warning("dataset cache not trimmed", root=str(self._root), error=str(error))
        return removed

    def _remove(self, folder: Path) -> bool:
        """Remove a folder with its lock, unless somebody holds it."""
        doomed = self._root / f"{_DOOMED}{secrets.token_hex(8)}"
        lock = self._lock_of(folder)
        try:
            with _locked(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
                folder.rename(doomed)
                lock.unlink()
        except (BlockingIOError, FileNotFoundError):
            return False
        shutil.rmtree(doomed, ignore_errors=True)
        return True

    def _lock_of(self, folder: Path) -> Path:
        return self._root / f"{folder.name}{_LOCK}"


@contextlib.contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    """Hold a lock file that is still the one of its name; raises BlockingIOError if asked not to wait."""
    while True:
        with path.open("ab") as file:
            fcntl.flock(file, how)
            # Who removed the folder removed this file too: a lock on it would guard nothing.
            if _is_at(path, file.fileno()):
                yield
                return


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _size_bytes(folder: Path) -> int:
    total = 0
    # A run may be replacing files in it, another slot removing it: what is gone has no size.
    with contextlib.suppress(FileNotFoundError):
        for path in folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_blocks * 512
    return total


def _used_at(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0
