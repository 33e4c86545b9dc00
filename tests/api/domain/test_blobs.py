"""Bytes by their content: all of a file or nothing."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from pathlib import Path

import pytest

from api.domain.blobs import Blob, BlobStore
from tests.support.books import until

DATA = b"cells" * 1000
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def files(store: BlobStore) -> list[str]:
    return sorted(str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.is_file())


def test_written_in_pieces(store: BlobStore) -> None:
    with store.open_writer() as writer:
        for start in range(0, len(DATA), 700):
            writer.write(memoryview(DATA)[start : start + 700])
        assert not store.has(SHA)
        blob = writer.commit()
    assert blob == Blob(SHA, len(DATA))
    assert files(store) == [f"sha256/{SHA[:2]}/{SHA}"]
    assert store.path(SHA) == store.images_root / SHA[:2] / SHA
    assert store.read_bytes(SHA) == DATA
    with store.open(SHA) as file:
        assert file.read(5) == b"cells"


def test_a_new_folder_is_synced_with_its_name(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync = os.fsync

    def note(handle: int) -> None:
        synced.append(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", note)
    store.put_bytes(DATA)
    assert synced[1:] == [folder.stat().st_ino for folder in (store.images_root, store.path(SHA).parent)]


def test_nothing_is_left_of_what_was_not_committed(store: BlobStore) -> None:
    with pytest.raises(RuntimeError), store.open_writer() as writer:
        writer.write(DATA)
        raise RuntimeError
    assert files(store) == []


def test_the_same_bytes_cost_nothing(store: BlobStore, tmp_path: Path) -> None:
    source = tmp_path / "a.bin"
    source.write_bytes(DATA)
    assert store.put_bytes(DATA) == store.put_file(source) == store.move_file(source) == Blob(SHA, len(DATA))
    assert not source.exists()
    assert len(files(store)) == 1


def test_a_file_is_moved_in(store: BlobStore, tmp_path: Path) -> None:
    source = tmp_path / "a.bin"
    source.write_bytes(DATA)
    inode = source.stat().st_ino
    store.move_file(source)
    assert store.path(SHA).stat().st_ino == inode


@pytest.mark.parametrize("text", ["", "ab", "../../etc/passwd", "A" * 64, "g" * 64, SHA + "\n"])
def test_only_a_sha256_names_a_blob(store: BlobStore, text: str) -> None:
    with pytest.raises(ValueError, match="not a sha256"):
        store.path(text)


def test_absent(store: BlobStore) -> None:
    assert not store.has(SHA)
    with pytest.raises(FileNotFoundError):
        store.read_bytes(SHA)


def test_stale_parts_go(store: BlobStore) -> None:
    old, new = store.root / "tmp" / "old.part", store.root / "tmp" / "new.part"
    for part in (old, new):
        part.write_bytes(b"x")
    os.utime(old, (1000, 1000))
    assert store.drop_stale_parts(older_than=2000) == 1
    assert (old.exists(), new.exists()) == (False, True)


def age(store: BlobStore, sha256: str = SHA) -> None:
    os.utime(store.path(sha256), (1000, 1000))


def test_an_old_content_can_be_removed(store: BlobStore) -> None:
    store.put_bytes(DATA)
    assert store.remove(SHA, older_than=2000) == 0
    age(store)
    assert store.remove(SHA, older_than=2000) == len(DATA)
    assert store.remove(SHA, older_than=2000) == 0
    assert files(store) == []


def test_whoever_stores_or_asks_keeps_it(store: BlobStore, tmp_path: Path) -> None:
    source = tmp_path / "a.bin"
    source.write_bytes(DATA)
    moved = tmp_path / "b.bin"
    for use in (
        lambda: store.put_bytes(DATA),
        lambda: store.has(SHA),
        lambda: store.put_file(source),
        lambda: store.link_file(source),
        lambda: store.move_file(moved),
    ):
        store.put_bytes(DATA)
        age(store)
        moved.write_bytes(DATA)
        use()
        assert store.remove(SHA, older_than=2000) == 0
        assert store.read_bytes(SHA) == DATA


def test_an_interrupted_removal_is_finished_or_taken_back(store: BlobStore) -> None:
    other = store.put_bytes(b"other")
    store.put_bytes(DATA)
    age(store)
    for sha256 in (SHA, other.sha256):
        store.path(sha256).rename(store.root / "tmp" / f"{sha256}.doomed")
    assert [path.name for path in store.stale_parts(older_than=2000)] == [f"{SHA}.doomed"]
    assert store.drop_stale_parts(older_than=2000) == 1
    assert not store.has(SHA)
    assert store.read_bytes(other.sha256) == b"other"
    assert len(files(store)) == 1


def test_removing_and_storing_at_once_loses_nothing(store: BlobStore) -> None:
    """Whoever was told that the content is there finds it, however often it is being removed."""
    stop, removed = threading.Event(), []

    def remove() -> None:
        while not stop.is_set():
            removed.append(store.remove(SHA, older_than=2000))

    thread = threading.Thread(target=remove)
    thread.start()
    try:
        for number in range(150):
            if number % 2 or not store.has(SHA):
                store.put_bytes(DATA)
            # It may be out of sight for a moment, and is back before anybody opens it for good.
            until(lambda: store.path(SHA).is_file(), timeout_s=5, pause_s=0)
            with contextlib.suppress(FileNotFoundError):
                age(store)
    finally:
        stop.set()
        thread.join()
    assert len(DATA) in removed


def test_a_file_is_stored_without_a_copy(store: BlobStore, tmp_path: Path) -> None:
    source = tmp_path / "a.bin"
    source.write_bytes(DATA)
    os.utime(source, (1000, 1000))
    assert store.link_file(source) == Blob(SHA, len(DATA))
    assert store.path(SHA).stat().st_ino == source.stat().st_ino
    assert store.remove(SHA, older_than=2000) == 0
    age(store)
    assert store.remove(SHA, older_than=2000) == 0, "its bytes have another name"
    assert (source.exists(), store.has(SHA)) == (True, False)
    with pytest.raises(FileNotFoundError):
        store.link_file(tmp_path / "absent")
    assert files(store) == []


def test_old_contents_by_shard(store: BlobStore) -> None:
    store.put_bytes(DATA)
    store.put_bytes(b"young")
    age(store)
    (store.images_root / SHA[:2] / "README").write_bytes(b"no content")
    assert SHA[:2] in store.shards()
    assert store.old_contents(SHA[:2], older_than=2000) == [Blob(SHA, len(DATA))]
    assert store.old_contents("zz", older_than=2000) == []
