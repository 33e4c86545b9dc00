"""Dataset folders are named by content, kept while used, and trimmed oldest first."""

import os
from pathlib import Path

import pytest

from api.domain.blobs import BlobStore
from worker.cache import DatasetCache, MissingDatasetError


def test_files_of_a_dataset(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path / "blobs")
    blob = blobs.put_bytes(b"{}")
    files = DatasetCache(tmp_path / "cache", blobs).open(blob.sha256)
    assert files.manifest.read_bytes() == b"{}"
    assert files.images_root == blobs.images_root
    assert files.cache_dir == tmp_path / "cache" / blob.sha256
    assert files.cache_dir.is_dir()


def test_a_lost_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDatasetError):
        DatasetCache(tmp_path / "cache", BlobStore(tmp_path / "blobs")).open("a" * 64)


def test_the_least_used_goes_first_and_the_used_one_stays(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path / "blobs")
    cache = DatasetCache(tmp_path / "cache", blobs)
    hashes = [blobs.put_bytes(text.encode()).sha256 for text in "abc"]
    for age, name in enumerate(hashes):
        folder = cache.open(name).cache_dir
        (folder / "images.bin").write_bytes(os.urandom(100_000))
        os.utime(folder, (1000 + age, 1000 + age))
    small = DatasetCache(tmp_path / "cache", blobs, max_bytes=150_000)
    assert small.trim(keep=hashes[0]) == hashes[1:]
    assert [folder.name for folder in (tmp_path / "cache").iterdir()] == [hashes[0]]
