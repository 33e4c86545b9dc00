"""Bytes by their content: all of a file or nothing."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from api.domain.blobs import Blob, BlobStore

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
