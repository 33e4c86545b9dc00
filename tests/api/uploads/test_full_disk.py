"""Uploads to a disk that is full, or would be: 507, nothing half-written, and the next one works again."""

from __future__ import annotations

import hashlib
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api.domain.blobs import BlobStore
from api.uploads.room import MOST_KEPT_BYTES, Room
from tests.support.books import until
from tests.support.service import ZIP_HEAD, World, client_of, model_text, new_world, on_port
from tests.support.small_disk import MIB, SmallDisk, small_disk

CONTENT = ZIP_HEAD + hashlib.shake_256(b"seed").digest(5 * MIB)


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    """One that the user of a database server can reach, too."""
    with tempfile.TemporaryDirectory(prefix="ts-disk-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        with small_disk(folder / "disk") as made:
            yield made


@pytest.fixture
def world(disk: SmallDisk, books_in: str) -> Iterator[World]:
    with new_world(disk.folder, book_in=disk.folder / "book") as made:
        yield made


def upload(client: httpx.Client, *, in_pieces: bool = False) -> httpx.Response:
    pieces = (CONTENT[start : start + 100_000] for start in range(0, len(CONTENT), 100_000))
    return client.put("/v1/datasets", params={"name": "a"}, content=pieces if in_pieces else CONTENT)


def is_refused(answer: httpx.Response) -> bool:
    assert answer.headers["content-type"] == "application/problem+json"
    return (answer.status_code, answer.json()["code"]) == (507, "STORAGE_FULL")


def is_stored(world: World, answer: httpx.Response) -> bool:
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    assert answer.status_code == 202, answer.text
    return answer.json()["sha256"] == sha256 and world.files() == [
        world.settings.blobs_dir / "sha256" / sha256[:2] / sha256
    ]


@pytest.mark.parametrize(
    ("total", "kept"), [(0, 0), (20 * MIB, MIB), (1 << 50, MOST_KEPT_BYTES), (1 << 30, (1 << 30) // 20)]
)
def test_a_part_of_the_disk_stays_free(total: int, kept: int) -> None:
    assert Room(Path("/")).kept_bytes(total) == kept


def test_there_is_room_on_a_disk_that_is_not_full(tmp_path: Path) -> None:
    Room(tmp_path).check(0)


@pytest.mark.parametrize("in_pieces", [False, True], ids=["declared", "in pieces"])
def test_what_would_fill_the_disk_is_refused(world: World, disk: SmallDisk, *, in_pieces: bool) -> None:
    with client_of(world) as client:
        disk.fill(leave_bytes=4 * MIB)
        assert is_refused(upload(client, in_pieces=in_pieces))
        assert (world.files(), world.num_datasets()) == ([], 0)
        disk.empty()
        assert is_stored(world, upload(client, in_pieces=in_pieces))


def test_nothing_is_taken_below_the_mark(world: World, disk: SmallDisk) -> None:
    with client_of(world) as client:
        disk.fill(leave_bytes=MIB)
        answer = client.put("/v1/datasets", params={"name": "a"}, content=ZIP_HEAD)
        assert is_refused(answer)
        assert "trainshed gc" in answer.json()["detail"]
        assert world.files() == []


@pytest.mark.parametrize("in_pieces", [False, True], ids=["declared", "in pieces"])
def test_a_disk_that_takes_no_more_files(world: World, disk: SmallDisk, *, in_pieces: bool) -> None:
    """The kernel's own refusal, met where the body is about to be written."""
    with client_of(world) as client:
        disk.take_names()
        assert is_refused(upload(client, in_pieces=in_pieces))
        disk.empty()
        assert world.files() == []
        assert is_stored(world, upload(client))


def test_a_disk_that_fills_up_in_mid_upload(world: World, disk: SmallDisk) -> None:
    with on_port(world) as address:
        url = httpx.URL(address)
        with socket.create_connection((url.host, url.port or 80)) as connection:
            head = (
                f"PUT /v1/datasets?name=a HTTP/1.1\r\nHost: {url.host}\r\n"
                f"Authorization: Bearer {world.token}\r\nContent-Length: {len(CONTENT)}\r\n\r\n"
            )
            connection.sendall(head.encode() + CONTENT[: 3 * MIB])
            until(lambda: any(path.stat().st_size for path in world.files()))
            disk.fill()
            connection.sendall(CONTENT[3 * MIB :])
            connection.settimeout(10)
            assert b" 507 " in connection.recv(4096).partition(b"\r\n")[0]
        until(lambda: not world.files())
        disk.empty()
        with httpx.Client(base_url=address, headers=world.headers) as client:
            assert is_stored(world, upload(client))


def test_a_writer_on_a_full_disk_leaves_nothing(disk: SmallDisk) -> None:
    store = BlobStore(disk.folder / "blobs")
    disk.fill(leave_bytes=MIB)
    with pytest.raises(OSError, match="No space left"), store.open_writer() as writer:
        for start in range(0, len(CONTENT), 70_001):
            writer.write(CONTENT[start : start + 70_001])
    assert [path for path in store.root.rglob("*") if path.is_file()] == []
    disk.empty()
    assert store.put_bytes(CONTENT).size_bytes == len(CONTENT)


def test_a_full_database_is_told_as_such(world: World, disk: SmallDisk) -> None:
    """Only reading goes on; nothing of the refused write is there when space returns."""
    with client_of(world) as client:
        assert is_stored(world, upload(client))
        disk.fill()
        text = model_text() + "# a comment that takes space\n" * 600
        answer = client.post("/v1/architectures", params={"name": "m"}, content=text)
        assert is_refused(answer)
        assert client.get("/v1/datasets").status_code == 200
        disk.empty()
        assert client.get("/v1/architectures").json()["items"] == []
        answer = client.post("/v1/architectures", params={"name": "m"}, content=model_text())
        assert answer.status_code == 201, answer.text
