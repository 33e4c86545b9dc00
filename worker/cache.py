"""Files of a dataset on this machine: its manifest, its images, and a folder for what can be made from them.

Everything here can be rebuilt from blobs, so it is named by content and thrown away, least used first, when
it grows too large. It must not know what the trainer puts into the folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from api.domain.blobs import BlobStore

GIB = 1 << 30


class MissingDatasetError(Exception):
    """The manifest of a ready dataset is not in the blob store."""


@dataclass(frozen=True)
class DatasetFiles:
    """Absolute paths a child is given: images lie at `images_root`/<sha256[:2]>/<sha256>."""

    manifest: Path
    images_root: Path
    cache_dir: Path


class DatasetCache:
    """One folder per dataset content under `root`, shared by all slots of a machine."""

    def __init__(self, root: Path, blobs: BlobStore, *, max_bytes: int = 50 * GIB) -> None:
        self._root = root
        self._blobs = blobs
        self._max_bytes = max_bytes

    def open(self, manifest_hash: str) -> DatasetFiles:
        """Return the files of a dataset and mark its folder as used.

        Raises MissingDatasetError if the manifest is gone.
        """
        manifest = self._blobs.path(manifest_hash)
        if not manifest.is_file():
            raise MissingDatasetError(manifest_hash)
        folder = self._root / manifest_hash
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        self.trim(keep=manifest_hash)
        return DatasetFiles(manifest, self._blobs.images_root, folder)

    def trim(self, *, keep: str) -> list[str]:
        """Remove the least recently used folders until the rest fits; return what was removed.

        A child that still maps a removed file keeps reading it: the bytes go with the last map.
        """
        sizes = {folder: _size_bytes(folder) for folder in self._root.iterdir() if folder.is_dir()}
        total = sum(sizes.values())
        removed = []
        for folder in sorted(sizes, key=_used_at):
            if total <= self._max_bytes:
                break
            if folder.name != keep:
                shutil.rmtree(folder, ignore_errors=True)
                total -= sizes[folder]
                removed.append(folder.name)
        return removed


def _size_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        # Another slot may be trimming too.
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_blocks * 512
    return total


def _used_at(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0
