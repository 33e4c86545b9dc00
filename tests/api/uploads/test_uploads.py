"""An upload is whole or it never was: what is refused, dropped or slow leaves nothing behind."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import socket
import tarfile
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from api.domain.blobs import BlobStore
from api.errors import BadRequestError
from api.uploads.archives import HEAD_BYTES, archive_kind
from api.uploads.digests import sha256_of
from tests.support.books import until
from tests.support.service import ZIP_HEAD, World, client_of, new_world, on_port


def tar_bytes(format_: int, name: str = "data.yaml") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format_) as archive:
        archive.addfile(tarfile.TarInfo(name))
    return out.getvalue()


def without_magic(content: bytes, checksum: Callable[[bytes], int]) -> bytes:
    """Make a tar's first header one of the oldest form, with a checksum of its own kind."""
    head = bytearray(content[:HEAD_BYTES])
    head[257:] = bytes(255)
    head[148:156] = b" " * 8
    head[148:156] = f"{checksum(bytes(head)):06o}\0 ".encode()
    return bytes(head)


def signed_sum(head: bytes) -> int:
    return sum(byte - 256 if byte > 127 else byte for byte in head)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (ZIP_HEAD, "zip"),
        (b"PK\x05\x06" + b"\0" * 18, "zip"),
        (gzip.compress(b"x"), "tar.gz"),
        (b"\x28\xb5\x2f\xfd....", "tar.zst"),
        (tar_bytes(tarfile.USTAR_FORMAT), "tar"),
        (tar_bytes(tarfile.PAX_FORMAT), "tar"),
        (tar_bytes(tarfile.GNU_FORMAT), "tar"),
        (without_magic(tar_bytes(tarfile.USTAR_FORMAT), sum), "tar"),
        (without_magic(tar_bytes(tarfile.USTAR_FORMAT, "\u00fc.txt"), signed_sum), "tar"),
        (without_magic(tar_bytes(tarfile.USTAR_FORMAT), lambda head: sum(head) + 1), None),
        (b"", None),
        (b"PK", None),
        (b"\0" * HEAD_BYTES, None),
        (b"<html>" + b" " * HEAD_BYTES, None),
        (b"Rar!\x1a\x07\x01\0", None),
    ],
)
def test_archives_are_known_by_their_first_bytes(head: bytes, kind: str | None) -> None:
    assert archive_kind(head[:HEAD_BYTES]) == kind


def digest_header(content: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


def test_digests_are_read_among_others() -> None:
    header = digest_header(b"abc")
    assert sha256_of(header) == hashlib.sha256(b"abc").hexdigest()
    assert sha256_of(f"sha-512=:AAAA:, {header}") == hashlib.sha256(b"abc").hexdigest()
    assert sha256_of("sha-512=:AAAA:") is None
    assert sha256_of(None) is None


@pytest.mark.parametrize("header", ["", "sha-256=abc", "sha-256=:abc:", "sha-256=:AAAA:", "sha-256"])
def test_unreadable_digests_are_refused(header: str) -> None:
    with pytest.raises(BadRequestError):
        sha256_of(header)


def test_an_upload_becomes_a_blob_a_dataset_and_an_ingest(world: World, client: httpx.Client) -> None:
    content = ZIP_HEAD + bytes(range(256)) * 1000
    headers = {"Repr-Digest": digest_header(content)}
    answer = client.put("/v1/datasets", params={"name": "cells"}, content=content, headers=headers)
    assert answer.status_code == 202
    body = answer.json()
    assert answer.headers["location"] == f"/v1/datasets/{body['id']}"
    assert (body["status"], body["size_bytes"]) == ("ingesting", len(content))
    assert body["file_name"] == "cells.zip"
    assert body["sha256"] == hashlib.sha256(content).hexdigest()
    assert BlobStore(world.settings.blobs_dir).read_bytes(body["sha256"]) == content
    world.ingest(body["id"])
    assert client.get(answer.headers["location"]).json()["status"] == "ready"


def test_the_same_bytes_again_cost_nothing(world: World, client: httpx.Client) -> None:
    first = client.post("/v1/datasets", params={"name": "a"}, content=ZIP_HEAD)
    second = client.post("/v1/datasets", params={"name": "a"}, content=ZIP_HEAD)
    third = client.post("/v1/datasets", params={"name": "b"}, content=ZIP_HEAD)
    assert first.json()["id"] == second.json()["id"] != third.json()["id"]
    assert len(world.files()) == 1
    other = client.post("/v1/datasets", params={"name": "a"}, content=ZIP_HEAD + b"more")
    assert (other.status_code, other.json()["code"]) == (409, "NAME_TAKEN")


@pytest.mark.parametrize("told", ["size", "digest", "nothing"])
def test_a_name_that_is_taken_leaves_nothing(world: World, client: httpx.Client, told: str) -> None:
    first = ZIP_HEAD + b"one"
    client.put("/v1/datasets", params={"name": "a"}, content=first)
    other = ZIP_HEAD + (b"three" if told == "size" else b"two")
    headers = {"Repr-Digest": digest_header(other)} if told == "digest" else {}
    body = iter([other]) if told == "nothing" else other
    answer = client.put("/v1/datasets", params={"name": "a"}, content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (409, "NAME_TAKEN")
    assert [path.read_bytes() for path in world.files()] == [first]


@pytest.mark.parametrize("header", ["Content-Length: 200000", "Repr-Digest: " + digest_header(b"other")])
def test_a_name_known_to_be_taken_is_refused_before_the_body(world: World, header: str) -> None:
    with client_of(world) as client:
        client.put("/v1/datasets", params={"name": "a"}, content=ZIP_HEAD)
        url = client.base_url
        length = "" if header.startswith("Content-Length") else f"Content-Length: {len(ZIP_HEAD)}\r\n"
        with socket.create_connection((url.host, url.port or 80)) as connection:
            head = (
                f"PUT /v1/datasets?name=a HTTP/1.1\r\nHost: {url.host}\r\n"
                f"Authorization: Bearer {world.token}\r\n{length}{header}\r\nExpect: 100-continue\r\n\r\n"
            )
            connection.sendall(head.encode())
            connection.settimeout(10)
            assert b" 409 " in connection.recv(4096).partition(b"\r\n")[0]


def test_a_client_that_goes_away_leaves_nothing(world: World) -> None:
    with on_port(world) as address:
        url = httpx.URL(address)
        with socket.create_connection((url.host, url.port or 80)) as connection:
            head = (
                f"PUT /v1/datasets?name=x HTTP/1.1\r\nHost: {url.host}\r\n"
                f"Authorization: Bearer {world.token}\r\nContent-Length: 200000\r\n\r\n"
            )
            connection.sendall(head.encode() + ZIP_HEAD + b"\0" * 100_000)
            until(lambda: bool(world.files()))
        until(lambda: not world.files())
        assert world.num_datasets() == 0


def test_a_length_that_lies_is_found_out(world: World) -> None:
    """More than the limit is refused at once by what is declared, before a byte of it is read."""
    with on_port(world) as address:
        url = httpx.URL(address)
        with socket.create_connection((url.host, url.port or 80)) as connection:
            head = (
                f"PUT /v1/datasets?name=x HTTP/1.1\r\nHost: {url.host}\r\n"
                f"Authorization: Bearer {world.token}\r\nContent-Length: 99999999999\r\n\r\n"
            )
            connection.sendall(head.encode())
            connection.settimeout(10)
            assert b" 413 " in connection.recv(4096)
    assert world.files() == []


@pytest.mark.usefixtures("books_in")
def test_bodies_of_many_blocks_arrive_unchanged(tmp_path: Path) -> None:
    content = ZIP_HEAD + hashlib.shake_256(b"seed").digest(9_000_001)

    def chunks() -> object:
        for start in range(0, len(content), 70_000):
            yield content[start : start + 70_000]

    with new_world(tmp_path) as world, client_of(world) as client:
        answer = client.put("/v1/datasets", params={"name": "big"}, content=chunks())
        assert answer.status_code == 202
        assert answer.json()["sha256"] == hashlib.sha256(content).hexdigest()
        assert len(world.files()) == 1
