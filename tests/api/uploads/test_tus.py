"""Uploads that are resumed: each header of the protocol, each refusal, and what a cut or a crash leaves."""

from __future__ import annotations

import base64
import hashlib
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api.domain.blobs import BlobStore
from api.domain.clock import SYSTEM_CLOCK
from api.domain.settings import DAY
from api.domain.uploads import UploadBook
from api.errors import BadRequestError
from api.sweep import Freed, Sweeper
from api.uploads.parts import BusyError, PartStore
from api.uploads.tus import CONTENT_TYPE, format_metadata, parse_checksum, parse_metadata
from tests.support.books import until
from tests.support.service import ZIP_HEAD, World, new_world, on_port

BODY = ZIP_HEAD + hashlib.shake_256(b"tus").digest(250_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
VERSION = {"Tus-Resumable": "1.0.0"}


@pytest.fixture
def tus(client: httpx.Client) -> httpx.Client:
    client.headers.update(VERSION)
    return client


def metadata(**values: str) -> dict[str, str]:
    return {"Upload-Metadata": format_metadata(values)}


def begin(tus: httpx.Client, size: int = len(BODY), **more: str) -> str:
    answer = tus.post("/v1/uploads", headers={"Upload-Length": str(size), **metadata(**more)})
    assert answer.status_code == 201, answer.text
    return str(answer.headers["location"])


def patch(tus: httpx.Client, url: str, offset: int, body: bytes, **headers: str) -> httpx.Response:
    sent = {"Upload-Offset": str(offset), "Content-Type": CONTENT_TYPE}
    return tus.patch(url, content=body, headers=sent | {k.replace("_", "-"): v for k, v in headers.items()})


def offset_of(tus: httpx.Client, url: str) -> int:
    answer = tus.head(url)
    assert answer.status_code == 200
    return int(answer.headers["upload-offset"])


def checksum(body: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm} {base64.b64encode(hashlib.new(algorithm, body).digest()).decode()}"


def parts(world: World) -> list[Path]:
    return sorted(world.settings.uploads_dir.iterdir())


def test_what_uploads_can_do_is_told(tus: httpx.Client) -> None:
    answer = tus.options("/v1/uploads")
    assert answer.status_code == 204
    assert answer.headers["tus-version"] == "1.0.0"
    assert answer.headers["tus-extension"] == "creation,creation-with-upload,termination,expiration,checksum"
    assert (answer.headers["tus-max-size"], answer.headers["tus-checksum-algorithm"]) == (
        "300000",
        "sha1,sha256",
    )


def test_pieces_become_a_dataset(world: World, tus: httpx.Client) -> None:
    url = begin(tus, filename="cells.zip", sha256=SHA256)
    for start in range(0, len(BODY), 100_000):
        answer = patch(tus, url, start, BODY[start : start + 100_000])
        assert answer.status_code == 204, answer.text
        assert "upload-expires" in answer.headers
        assert answer.headers["tus-resumable"] == "1.0.0"
    head = tus.head(url)
    assert head.headers["upload-length"] == head.headers["upload-offset"] == str(len(BODY))
    assert parse_metadata(head.headers["upload-metadata"])["filename"] == "cells.zip"
    assert (parts(world), head.headers["cache-control"]) == ([], "no-store")
    stored = BlobStore(world.settings.blobs_dir).path(SHA256)
    assert stored.read_bytes() == BODY
    again = patch(tus, url, len(BODY), b"")
    assert again.status_code == 204, "an answer that was lost is asked for again"


@pytest.mark.parametrize("size", [0, 1000])
def test_an_upload_comes_with_its_creation(tus: httpx.Client, size: int) -> None:
    headers = {"Upload-Length": str(size), "Content-Type": CONTENT_TYPE}
    answer = tus.post("/v1/uploads", headers=headers, content=BODY[:size])
    assert (answer.status_code, answer.headers["upload-offset"]) == (201, str(size))
    assert offset_of(tus, answer.headers["location"]) == size


def test_a_part_comes_with_the_creation(tus: httpx.Client) -> None:
    headers = {"Upload-Length": "1000", "Content-Type": CONTENT_TYPE}
    answer = tus.post("/v1/uploads", headers=headers, content=BODY[:400])
    assert answer.headers["upload-offset"] == "400"
    assert patch(tus, answer.headers["location"], 400, BODY[400:1000]).status_code == 204


REFUSALS = {
    "wrong offset": (409, "OFFSET_MISMATCH", 5, b"x", {}),
    "no offset": (400, "HEADER_UNREADABLE", 10, b"x", {"Upload_Offset": "x"}),
    "type": (415, "UNSUPPORTED_MEDIA_TYPE", 10, b"x", {"Content_Type": "text/plain"}),
    "too much": (413, "CONTENT_TOO_LARGE", 10, b"x" * 991, {}),
    "checksum": (460, "CHECKSUM_MISMATCH", 10, b"x", {"Upload_Checksum": checksum(b"y")}),
    "algorithm": (400, "HEADER_UNREADABLE", 10, b"x", {"Upload_Checksum": "md4 AA=="}),
    "version": (412, "TUS_VERSION", 10, b"x", {"Tus_Resumable": "0.2.2"}),
}


@pytest.mark.parametrize(("status", "code", "offset", "body", "headers"), REFUSALS.values(), ids=REFUSALS)
def test_what_is_refused_leaves_the_offset(
    tus: httpx.Client, status: int, code: str, offset: int, body: bytes, headers: dict[str, str]
) -> None:
    url = begin(tus, 1000)
    assert patch(tus, url, 0, BODY[:10]).status_code == 204
    answer = patch(tus, url, offset, body, **headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert offset_of(tus, url) == 10
    assert patch(tus, url, 10, BODY[10:1000], Upload_Checksum=checksum(BODY[10:1000], "sha1")).is_success


def test_a_body_that_says_no_length_is_bounded(tus: httpx.Client) -> None:
    url = begin(tus, 1000)
    answer = tus.patch(
        url,
        content=iter([b"x" * 600, b"x" * 600]),
        headers={"Upload-Offset": "0", "Content-Type": CONTENT_TYPE},
    )
    assert (answer.status_code, offset_of(tus, url)) == (413, 0)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Upload-Length": "300001"}, 413),
        ({"Upload-Length": "-1"}, 400),
        ({}, 400),
        ({"Upload-Defer-Length": "1"}, 400),
        ({"Upload-Length": "1", "Upload-Metadata": "a ?"}, 400),
        ({"Upload-Length": "1", "Tus-Resumable": "2"}, 412),
    ],
)
def test_creations_that_are_refused(
    world: World, tus: httpx.Client, headers: dict[str, str], status: int
) -> None:
    assert tus.post("/v1/uploads", headers=headers).status_code == status
    assert parts(world) == []


def test_a_whole_that_is_not_what_was_said_begins_anew(tus: httpx.Client) -> None:
    url = begin(tus, 10, sha256="0" * 64)
    answer = patch(tus, url, 0, BODY[:10])
    assert (answer.status_code, answer.json()["code"], offset_of(tus, url)) == (422, "DIGEST_MISMATCH", 0)


def test_given_up_is_gone(world: World, tus: httpx.Client) -> None:
    url = begin(tus)
    patch(tus, url, 0, BODY[:10])
    assert tus.delete(url).status_code == 204
    assert (parts(world), tus.head(url).status_code, tus.delete(url).status_code) == ([], 404, 404)


def test_another_s_upload_does_not_exist(world: World, tus: httpx.Client) -> None:
    url, stranger = begin(tus), world.other_user() | VERSION
    assert tus.head(url, headers=stranger).status_code == 404
    assert tus.delete(url, headers=stranger).status_code == 404
    headers = {"Upload-Offset": "0", "Content-Type": CONTENT_TYPE} | stranger
    assert tus.patch(url, content=b"x", headers=headers).status_code == 404
    assert offset_of(tus, url) == 0


def test_one_writer_at_a_time(world: World, tus: httpx.Client) -> None:
    url = begin(tus)
    held = PartStore(world.settings.uploads_dir).open(url.rpartition("/")[2])
    try:
        answer = patch(tus, url, 0, BODY)
        assert (answer.status_code, answer.json()["code"]) == (423, "UPLOAD_BUSY")
        assert tus.delete(url).status_code == 423
    finally:
        held.close()
    assert patch(tus, url, 0, BODY).status_code == 204


def test_an_expired_upload_is_gone_and_then_collected(world: World, tus: httpx.Client) -> None:
    url, alive = begin(tus), begin(tus)
    upload_id = url.rpartition("/")[2]
    patch(tus, url, 0, BODY[:1000])
    patch(tus, alive, 0, BODY[:1000])
    UploadBook(world.store).renew(upload_id, SYSTEM_CLOCK.wall() - 1)
    assert (tus.head(url).status_code, patch(tus, url, 1000, b"x").status_code) == (410, 410)
    blobs = BlobStore(world.settings.blobs_dir)
    for dry_run in (True, False):
        found = list(Sweeper(world.store, blobs, world.settings, dry_run=dry_run).run())
        assert [one.name for one in found if isinstance(one, Freed)] == [upload_id]
    assert tus.head(url).status_code == 404
    assert [path.stem for path in parts(world)] == [alive.rpartition("/")[2]]
    assert offset_of(tus, alive) == 1000


def test_a_file_without_a_row_is_collected(world: World, tus: httpx.Client) -> None:
    (world.settings.uploads_dir / "up_1.part").write_bytes(b"x")
    (world.settings.uploads_dir / "up_2.base").write_bytes(b"0")
    list(Sweeper(world.store, BlobStore(world.settings.blobs_dir), world.settings).run())
    assert parts(world) == []


def test_going_on_lets_an_upload_live_longer(world: World, tus: httpx.Client) -> None:
    url = begin(tus)
    book, upload_id = UploadBook(world.store), url.rpartition("/")[2]
    book.renew(upload_id, SYSTEM_CLOCK.wall() + 60)
    patch(tus, url, 0, BODY[:10])
    assert book.get(upload_id, None).expires_at > SYSTEM_CLOCK.wall() + 0.9 * DAY


@pytest.fixture
def address(world: World) -> Iterator[str]:
    with on_port(world) as made:
        yield made


def test_what_came_before_a_cut_stays(world: World, address: str) -> None:
    draw = random.Random(14)
    with httpx.Client(base_url=address, headers=world.headers | VERSION) as tus:
        url, there, kept = begin(tus), 0, 0
        for _ in range(12):
            stop = min(len(BODY), there + draw.randrange(1, 40_000))
            cut_patch(world, address, url, there, len(BODY) - there, BODY[there:stop])
            found = offset_of(tus, url)
            assert there <= found <= stop
            kept += found > there
            there = found
        assert kept
        assert patch(tus, url, there, BODY[there:]).status_code == 204
    assert parts(world) == []
    assert BlobStore(world.settings.blobs_dir).path(SHA256).read_bytes() == BODY


def test_a_cut_piece_with_a_checksum_does_not_count(world: World, address: str) -> None:
    with httpx.Client(base_url=address, headers=world.headers | VERSION) as tus:
        url = begin(tus)
        cut_patch(world, address, url, 0, len(BODY), BODY[:5000], f"Upload-Checksum: {checksum(BODY)}\r\n")
        assert offset_of(tus, url) == 0


def cut_patch(
    world: World, address: str, url: str, offset: int, length: int, body: bytes, more: str = ""
) -> None:
    """Send a part of a piece, and close when the service is at it; returns when it noticed."""
    target = httpx.URL(address)
    store, upload_id = PartStore(world.settings.uploads_dir), url.rpartition("/")[2]
    with socket.create_connection((target.host, target.port or 80), timeout=10) as connection:
        head = (
            f"PATCH {url} HTTP/1.1\r\nHost: {target.host}\r\nTus-Resumable: 1.0.0\r\n"
            f"Authorization: Bearer {world.token}\r\nContent-Length: {length}\r\n"
            f"Upload-Offset: {offset}\r\nContent-Type: {CONTENT_TYPE}\r\n{more}\r\n"
        )
        connection.sendall(head.encode() + body)
        until(lambda: store.is_busy(upload_id))
    until(lambda: not store.is_busy(upload_id))


@pytest.mark.usefixtures("books_in")
def test_a_quota_counts_archives_and_uploads(tmp_path: Path) -> None:
    with (
        new_world(tmp_path, max_dataset_bytes_per_owner=1000) as world,
        on_port(world) as address,
        httpx.Client(base_url=address, headers=world.headers | VERSION) as tus,
    ):
        whole = ZIP_HEAD + b"x" * 336
        assert tus.put("/v1/datasets", params={"name": "a"}, content=whole).status_code == 202
        url = begin(tus, 500)
        answer = tus.post("/v1/uploads", headers={"Upload-Length": "101"})
        assert (answer.status_code, answer.json()["code"]) == (413, "QUOTA_EXCEEDED")
        answer = tus.put("/v1/datasets", params={"name": "b"}, content=ZIP_HEAD + b"y" * 40)
        assert (answer.status_code, answer.json()["code"]) == (413, "QUOTA_EXCEEDED")
        assert tus.put("/v1/datasets", params={"name": "b"}, content=whole).status_code == 202, "counts once"
        assert tus.delete(url).status_code == 204
        assert tus.put("/v1/datasets", params={"name": "c"}, content=ZIP_HEAD + b"y" * 40).status_code == 202


def test_a_new_process_reads_what_is_there_once(tmp_path: Path) -> None:
    first = PartStore(tmp_path)
    part = first.open("up_1")
    part.begin(whole=False)
    part.write(BODY[:1000])
    part.close()
    again = PartStore(tmp_path)
    assert again.offset("up_1") == 1000
    part = again.open("up_1")
    part.begin(whole=False)
    part.write(BODY[1000:])
    assert part.sha256() == SHA256
    part.close()


def test_a_piece_of_a_dead_process_that_was_not_checked_goes(tmp_path: Path) -> None:
    store = PartStore(tmp_path)
    part = store.open("up_1")
    part.begin(whole=False)
    part.write(b"good")
    part.accept()
    part.begin(whole=True)
    part.write(b"unknown")
    part.close()
    assert store.offset("up_1") == 4
    part = PartStore(tmp_path).open("up_1")
    assert (part.offset, part.path.read_bytes()) == (4, b"good")
    part.close()
    assert [path.name for path in tmp_path.iterdir()] == ["up_1.part"]


def test_a_lock_is_one_writer_s(tmp_path: Path) -> None:
    store = PartStore(tmp_path)
    part = store.open("up_1")
    with pytest.raises(BusyError):
        PartStore(tmp_path).open("up_1")
    part.close()
    got: list[int] = []
    thread = threading.Thread(target=lambda: got.append(store.open("up_1").offset))
    thread.start()
    thread.join()
    assert got == [0]


@pytest.mark.parametrize("header", ["a", "", None, "a YQ==, b", "name w7w="])
def test_metadata_comes_back(header: str | None) -> None:
    found = parse_metadata(header)
    assert parse_metadata(format_metadata(found)) == found


@pytest.mark.parametrize("header", ["a ?", "a YQ==,a YQ==", "\u00fc YQ==", "a /w==", ", ", "a " + "A" * 9000])
def test_metadata_that_cannot_be_read(header: str) -> None:
    with pytest.raises(BadRequestError):
        parse_metadata(header)


def test_checksums() -> None:
    assert parse_checksum(None) is None
    found = parse_checksum(checksum(b"x", "sha1"))
    assert found is not None and found.digest == hashlib.sha1(b"x").digest()
    with pytest.raises(BadRequestError):
        parse_checksum("sha256 ?")
