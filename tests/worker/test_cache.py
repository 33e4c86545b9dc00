"""Dataset folders are named by content, kept while anybody uses them, and trimmed oldest first."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from api.domain.blobs import BlobStore
from tests.support.books import until
from worker.cache import DatasetCache, MissingDatasetError

ROOT = Path(__file__).resolve().parents[2]
# Another slot: holds a dataset's folder, builds a file in it, and lets go when its standard input ends.
OTHER_SLOT = """
import sys
from pathlib import Path
from api.domain.blobs import BlobStore
from worker.cache import DatasetCache
root, manifest_hash = Path(sys.argv[1]), sys.argv[2]
with DatasetCache(root / "cache", BlobStore(root / "blobs"), max_bytes=10**9).hold(manifest_hash) as files:
    (files.cache_dir / "part").write_bytes(b"x" * 200_000)
    (files.cache_dir / "part").rename(files.cache_dir / "pack.bin")
    sys.stdin.read()
    print("whole" if (files.cache_dir / "pack.bin").stat().st_size == 200_000 else "torn")
"""


@contextmanager
def other_slot(root: Path, manifest_hash: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER_SLOT, str(root), manifest_hash],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        until((root / "cache" / manifest_hash / "pack.bin").exists)
        yield process
    finally:
        process.kill()
        process.communicate()


def fill(root: Path, texts: str, size: int = 100_000) -> list[str]:
    """Make a folder of `size` bytes for each letter, the first the least recently used."""
    blobs = BlobStore(root / "blobs")
    cache = DatasetCache(root / "cache", blobs)
    hashes = [blobs.put_bytes(text.encode()).sha256 for text in texts]
    for age, name in enumerate(hashes):
        with cache.hold(name) as files:
            (files.cache_dir / "images.bin").write_bytes(os.urandom(size))
        os.utime(files.cache_dir, (1000 + age, 1000 + age))
    return hashes


def small(root: Path, max_bytes: int = 150_000) -> DatasetCache:
    return DatasetCache(root / "cache", BlobStore(root / "blobs"), max_bytes=max_bytes)


def folders(root: Path) -> set[str]:
    return {path.name for path in (root / "cache").iterdir() if path.is_dir()}


def test_files_of_a_dataset(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path / "blobs")
    blob = blobs.put_bytes(b"{}")
    with DatasetCache(tmp_path / "cache", blobs).hold(blob.sha256) as files:
        assert files.manifest.read_bytes() == b"{}"
        assert files.images_root == blobs.images_root
        assert files.cache_dir == tmp_path / "cache" / blob.sha256
        assert files.cache_dir.is_dir()


def test_a_lost_manifest_is_named(tmp_path: Path) -> None:
    cache = DatasetCache(tmp_path / "cache", BlobStore(tmp_path / "blobs"))
    with pytest.raises(MissingDatasetError), cache.hold("a" * 64):
        pass


def test_the_least_used_goes_first_and_the_used_one_stays(tmp_path: Path) -> None:
    hashes = fill(tmp_path, "abc")
    with small(tmp_path).hold(hashes[0]):
        assert folders(tmp_path) == {hashes[0]}
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.suffix] == [f"{hashes[0]}.lock"]


def test_the_oldest_goes_where_one_is_enough(tmp_path: Path) -> None:
    hashes = fill(tmp_path, "abc")
    assert small(tmp_path, 250_000).trim() == hashes[:1]


def test_a_folder_counts_as_used_at_the_end_of_its_use(tmp_path: Path) -> None:
    hashes = fill(tmp_path, "abc")
    with small(tmp_path, 350_000).hold(hashes[0]) as files:
        os.utime(files.cache_dir, (1, 1))
    assert small(tmp_path).trim() == [hashes[1], hashes[2]]


def test_what_a_killed_process_was_removing_is_removed(tmp_path: Path) -> None:
    hashes = fill(tmp_path, "a")
    (tmp_path / "cache" / ".doomed-1").mkdir()
    assert small(tmp_path).trim() == []
    assert folders(tmp_path) == set(hashes)


def test_a_folder_in_use_by_another_process_stays(tmp_path: Path) -> None:
    used, idle = fill(tmp_path, "ab")
    with other_slot(tmp_path, used) as other:
        assert small(tmp_path, 0).trim() == [idle]
        assert folders(tmp_path) == {used}
        told, _ = other.communicate(timeout=25)
    assert told.split() == [b"whole"]
    assert small(tmp_path, 0).trim() == [used]


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    (used,) = fill(tmp_path, "a")
    with other_slot(tmp_path, used):
        assert small(tmp_path, 0).trim() == []
    assert small(tmp_path, 0).trim() == [used]


def test_slots_that_open_while_others_trim_keep_their_folder(tmp_path: Path) -> None:
    (name,) = fill(tmp_path, "a", size=10)
    lost: list[int] = []

    def use() -> None:
        for turn in range(100):
            with small(tmp_path, 0).hold(name) as files:
                (files.cache_dir / "mine").write_bytes(b"x" * 5000)
                if not files.cache_dir.is_dir():
                    lost.append(turn)

    users = [threading.Thread(target=use) for _ in range(3)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert lost == []
    assert folders(tmp_path) == set()
