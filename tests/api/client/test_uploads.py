"""A large archive against the real service: sent in pieces, resumed, not sent when it is there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from api.client import ApiError, Client, UnreachableError
from api.client.uploads import send
from api.domain.clock import SYSTEM_CLOCK
from api.domain.uploads import UploadBook
from tests.support.service import ZIP_HEAD, World, new_world, on_port

BODY = ZIP_HEAD + hashlib.shake_256(b"client").digest(2_000_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
PIECE = 300_000


class Faulty:
    """A client whose lines are cut at chosen requests, after a part of the body was sent."""

    def __init__(self, client: Client, cut: set[int], lost: set[int] | None = None) -> None:
        self.client, self.cut, self.lost = client, cut, lost or set()
        self.sent: list[str] = []

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        content: Iterator[bytes] | None = None,
        timeout: httpx.Timeout,
    ) -> httpx.Response:
        self.sent.append(method)
        number = len(self.sent)
        if number in self.cut:
            raise UnreachableError("cut")
        answer = self.client.request(method, path, headers=headers, content=content, timeout=timeout)
        if number in self.lost:
            raise UnreachableError("the answer was lost")
        return answer


@pytest.fixture
def world(tmp_path: Path, books_in: str) -> Iterator[World]:
    with new_world(tmp_path) as made:
        yield made


@pytest.fixture
def client(world: World) -> Iterator[Client]:
    with on_port(world) as address, Client(address, world.token) as made:
        yield made


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "much.zip"
    path.write_bytes(BODY)
    return path


def test_pieces_lost_answers_and_cuts(world: World, client: Client, archive: Path) -> None:
    faulty = Faulty(client, cut={3, 6}, lost={8})
    told: list[tuple[int, int]] = []
    upload = send(faulty, archive, SHA256, lambda *seen: told.append(seen), piece_bytes=PIECE)
    assert faulty.sent.count("HEAD") == 3
    assert told[-1] == (len(BODY), len(BODY))
    found = UploadBook(world.store).get(upload, None)
    assert (found.sha256, found.finished_at is not None) == (SHA256, True)


def test_one_that_expired_meanwhile_begins_anew(world: World, client: Client, archive: Path) -> None:
    class Expiring(Faulty):
        def request(self, method: str, path: str, **more: object) -> httpx.Response:
            if len(self.sent) == 3:
                book = UploadBook(world.store)
                book.renew(path.rpartition("/")[2], SYSTEM_CLOCK.wall() - 1)
            return super().request(method, path, **more)  # type: ignore[arg-type]

    faulty = Expiring(client, cut=set())
    upload = send(faulty, archive, SHA256, piece_bytes=PIECE)
    assert faulty.sent.count("POST") == 2
    assert UploadBook(world.store).get(upload, None).sha256 == SHA256


def test_a_file_that_changed_is_refused(client: Client, archive: Path) -> None:
    with pytest.raises(ApiError, match="DIGEST_MISMATCH"):
        send(client, archive, "0" * 64)


def test_a_service_that_stays_away_is_given_up(client: Client, archive: Path) -> None:
    faulty = Faulty(client, cut=set(range(3, 1000)))
    with pytest.raises(UnreachableError):
        send(faulty, archive, SHA256, piece_bytes=PIECE, give_up_s=0.0)


class Counting(httpx.HTTPTransport):
    """Takes note of what is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(f"{request.method} {request.url.path.rpartition('up_')[0] or request.url.path}")
        return super().handle_request(request)


def test_push_sends_once(world: World, archive: Path) -> None:
    options = {"inspect": True, "classes": {"a": "b"}}
    transport = Counting()
    with on_port(world) as address, Client(address, world.token, transport=transport) as client:
        first = client.push_dataset(archive, "much", options=options)
        assert (first.status, first.as_json()["sha256"]) == ("ingesting", SHA256)
        assert first.as_json()["options"]["classes"] == {"a": "b"}
        order, uploads = "POST /v1/datasets", "/v1/uploads"
        assert transport.asked == [
            order, f"POST {uploads}", f"PATCH {uploads}/", order, f"DELETE {uploads}/"
        ]  # fmt: skip
        transport.asked.clear()
        assert client.push_dataset(archive, "again", options=options).id != first.id
        assert transport.asked == [order]
    assert list(world.settings.uploads_dir.iterdir()) == []
