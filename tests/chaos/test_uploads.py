"""Uploads cut at random places, and the API killed under them: nothing is left, and trying again works.

A body is sent again, whole; an upload in pieces goes on where it was cut. What must hold for both is that no
half of one is ever taken for a whole, that its bytes are gone once they are old, and that the memory of the
API does not grow with what comes in.
"""

from __future__ import annotations

import hashlib
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from api.client.uploads import PIECE_BYTES
from api.domain.clock import SYSTEM_CLOCK
from api.domain.uploads import UploadBook
from tests.chaos.sim_stack import SimStack
from tests.support.figures import record
from tests.support.members import until
from tests.support.proxy import FaultProxy
from tests.support.service import ZIP_HEAD

MIB = 1 << 20
SIZE = 6 * MIB
SEED = 14
# Rounds of each kind, and the size of the one large upload.
FAST, FULL = (20, 3, 192 * MIB), (200, 20, 1024 * MIB)
# Archives in pieces (40 s each), cut lines and killed processes for each, and the size of each.
PIECES_FAST, PIECES_FULL = (1, 4, 2, 24 * MIB), (10, 12, 4, 120 * MIB)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[SimStack]:
    with SimStack(tmp_path / "data", workers=0, collector_tick_s=0.2) as made:
        yield made


def content(number: int) -> bytes:
    """Return bytes that look like an archive, other ones for each number."""
    return ZIP_HEAD + hashlib.shake_256(f"{SEED} {number}".encode()).digest(SIZE)


def parts(stack: SimStack) -> list[Path]:
    return list((stack.settings.blobs_dir / "tmp").iterdir())


def stored(stack: SimStack) -> set[str]:
    """Return the digests of what is stored, each checked against its bytes."""
    found = set()
    for path in stack.settings.images_root.rglob("*"):
        if path.is_file():
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
            found.add(path.name)
    return found


def begin(stack: SimStack, name: str, body: bytes, offset: int) -> socket.socket:
    """Send the head of an upload and a part of its body; the caller decides how it ends."""
    url = httpx.URL(stack.url())
    connection = socket.create_connection((url.host, url.port or 80), timeout=20)
    head = (
        f"PUT /v1/datasets?name={name} HTTP/1.1\r\nHost: {url.host}\r\n"
        f"Authorization: Bearer {stack.token}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body[:offset])
    return connection


def send_whole(stack: SimStack, name: str, body: bytes) -> None:
    """Upload everything, and see that it is what arrived."""
    headers = {"Authorization": f"Bearer {stack.token}"}
    answer = httpx.put(
        f"{stack.url()}/v1/datasets", params={"name": name}, content=body, headers=headers, timeout=60
    )
    assert answer.status_code == 202, answer.text
    assert answer.json()["sha256"] == hashlib.sha256(body).hexdigest()


def rss(stack: SimStack) -> int:
    """Return the resident memory of the API process in bytes."""
    return int(psutil.Process(stack.members["api-0"].pid).memory_info().rss)


class HighWater:
    """Watches the API's memory from a thread; `peak` is the most it had, in bytes."""

    def __init__(self, stack: SimStack) -> None:
        self.peak = 0
        self._stack = stack
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> HighWater:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.01):
            self.peak = max(self.peak, rss(self._stack))


def cut_uploads(stack: SimStack, rounds: int) -> None:
    """Cut connections at random places, politely and not, and send each body again."""
    draw = random.Random(SEED)
    warm = 0
    for number in range(rounds):
        body, offset = content(number), draw.randrange(SIZE)
        connection = begin(stack, f"cut-{number}", body, offset)
        if draw.random() < 0.5:
            # A reset, as from a machine that went away, in place of an orderly end.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        until(lambda: not parts(stack), "the half to go", 20)
        send_whole(stack, f"cut-{number}", body)
        if number == min(4, rounds - 1):
            warm = rss(stack)
    growth = (rss(stack) - warm) / MIB
    record(f"API memory over {rounds} cut uploads of 6 MiB, growth", growth, "MiB", 8)
    assert growth < 40


def kill_in_mid_upload(stack: SimStack, rounds: int) -> None:
    """Kill the API at random places of a body; what is left goes once it is old, not sooner."""
    draw = random.Random(SEED + 1)
    for number in range(rounds):
        body, offset = content(1000 + number), draw.randrange(2 * MIB, SIZE)
        connection = begin(stack, f"kill-{number}", body, offset)
        until(lambda: any(path.stat().st_size for path in parts(stack)), "the first bytes on disk", 20)
        time.sleep(draw.random() * 0.05)
        stack.members["api-0"].kill()
        connection.close()
        assert hashlib.sha256(body).hexdigest() not in stored(stack)
        stack.restart("api-0")
        left = parts(stack)
        assert len(left) == 1, "a killed process cannot tidy up"
        send_whole(stack, f"kill-{number}", body)
        assert parts(stack) == left
        yesterday = time.time() - 25 * 3600
        os.utime(left[0], (yesterday, yesterday))
        until(lambda: not parts(stack), "the collector", 20)


def send_much(stack: SimStack, size: int) -> None:
    """Send one large body and see how much memory the API takes for it."""
    send_whole(stack, "warm", content(2000))
    before = rss(stack)
    block = hashlib.shake_256(b"block").digest(MIB)
    expected = hashlib.sha256(ZIP_HEAD)
    for _ in range(size // MIB):
        expected.update(block)

    def body() -> Iterator[bytes]:
        yield ZIP_HEAD
        for _ in range(size // MIB):
            yield block

    headers = {"Authorization": f"Bearer {stack.token}"}
    began = time.monotonic()
    with HighWater(stack) as memory:
        answer = httpx.put(
            f"{stack.url()}/v1/datasets",
            params={"name": "much"},
            content=body(),
            headers=headers,
            timeout=300,
        )
    assert answer.json()["sha256"] == expected.hexdigest()
    growth = (memory.peak - before) / MIB
    record(f"API memory while {size // MIB} MiB come in, growth at its peak", growth, "MiB", 16)
    record("API memory, resident", rss(stack) / MIB, "MiB")
    record("upload rate", size / MIB / (time.monotonic() - began), "MiB/s")
    assert growth < 80


def the_whole_of_it(stack: SimStack, cuts: int, kills: int, size: int) -> None:
    cut_uploads(stack, cuts)
    kill_in_mid_upload(stack, kills)
    known = {hashlib.sha256(content(number)).hexdigest() for number in range(cuts)}
    known |= {hashlib.sha256(content(1000 + number)).hexdigest() for number in range(kills)}
    others = {sha256 for sha256 in stored(stack) - known}
    assert known <= stored(stack)
    assert len(others) == 1, "the stack's own manifest, and nothing else"
    assert parts(stack) == []
    send_much(stack, size)


def test_uploads_that_are_cut_or_whose_api_is_killed(stack: SimStack) -> None:
    the_whole_of_it(stack, *FAST)


@pytest.mark.slow
def test_uploads_that_are_cut_or_whose_api_is_killed_often(stack: SimStack) -> None:
    the_whole_of_it(stack, *FULL)


class Faults:
    """Cuts the line, or kills the API and starts it again, whenever so many bytes were sent."""

    def __init__(self, stack: SimStack, proxy: FaultProxy, places: list[tuple[int, bool]]) -> None:
        self._stack = stack
        self._proxy = proxy
        self._places = sorted(places)
        self.num_met = 0

    def __call__(self, done: int, _: int) -> None:
        if self.num_met == len(self._places) or done < self._places[self.num_met][0]:
            return
        _, kills = self._places[self.num_met]
        self.num_met += 1
        if kills:
            self._stack.members["api-0"].kill()
            # Not waited for: the client is to meet a service that is away.
            self._stack.members["api-0"].start()
        else:
            self._proxy.reset()


def through_proxy(stack: SimStack) -> FaultProxy:
    url = httpx.URL(stack.url())
    return FaultProxy((url.host, url.port or 80))


def write_archive(path: Path, number: int, size: int) -> str:
    """Write something that looks like an archive, other bytes for each number; return its digest."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for block in (ZIP_HEAD, *(content(10_000 * number + part) for part in range(size // SIZE))):
            file.write(block)
            digest.update(block)
    return digest.hexdigest()


def resume(stack: SimStack, folder: Path, rounds: int, cuts: int, kills: int, size: int) -> set[str]:
    """Push archives through faults; return their digests, each of which arrived."""
    draw, known, met = random.Random(SEED + 2), set(), 0
    with through_proxy(stack) as proxy:
        for number in range(rounds):
            archive = folder / f"{number}.zip"
            expected = write_archive(archive, number + 1, size)
            places = [(draw.randrange(size), fault < kills) for fault in range(cuts + kills)]
            faults = Faults(stack, proxy, places)
            with stack.client(url=proxy.http_url) as client:
                made = client.push_dataset(archive, f"pieces-{number}", faults, give_up_s=60)
            assert made.as_json()["sha256"] == expected
            archive.unlink()
            known.add(expected)
            met += faults.num_met
            stack.await_ready("api-0")
    assert met >= rounds * (cuts + kills) * 0.8, "faults that were drawn behind the last piece are few"
    return known


def send_much_in_pieces(stack: SimStack, folder: Path, size: int) -> str:
    """Push one large archive over a line that is cut, and see how much memory the API takes for it."""
    archive = folder / "large.zip"
    expected = write_archive(archive, 1000, size)
    draw = random.Random(SEED + 3)
    with through_proxy(stack) as proxy, stack.client(url=proxy.http_url) as client:
        places = [(draw.randrange(size), False) for _ in range(6)]
        before = rss(stack)
        with HighWater(stack) as memory:
            made = client.push_dataset(archive, "large", Faults(stack, proxy, places), give_up_s=60)
    assert made.as_json()["sha256"] == expected
    growth = (memory.peak - before) / MIB
    record(f"API memory while {size // MIB} MiB come in by pieces, growth at its peak", growth, "MiB", 16)
    assert growth < 80
    return expected


def let_expire(stack: SimStack) -> None:
    """Begin uploads and leave them: they stay while their time runs, and nothing of them after."""
    tus = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}
    headers = {"Authorization": f"Bearer {stack.token}", "Upload-Length": str(2 * SIZE), **tus}
    answers = [
        httpx.post(f"{stack.url()}/v1/uploads", headers=headers, content=content(n), timeout=60)
        for n in range(3)
    ]
    assert [answer.headers["upload-offset"] for answer in answers] == [str(SIZE + len(ZIP_HEAD))] * 3
    folder, book = stack.settings.uploads_dir, UploadBook(stack.store)
    stack.members["api-0"].kill()
    *over, kept = sorted(path.stem for path in folder.iterdir())
    for name in over:
        book.renew(name, SYSTEM_CLOCK.wall() - 1)
    stack.restart("api-0")
    until(lambda: [path.stem for path in folder.iterdir()] == [kept], "the collector", 20)
    assert stack.query("SELECT id FROM uploads") == [(kept,)]
    assert parts(stack) == []


def all_of_pieces(
    stack: SimStack, folder: Path, rounds: int, cuts: int, kills: int, size: int, *, large: int
) -> None:
    known = resume(stack, folder, rounds, cuts, kills, size)
    known.add(send_much_in_pieces(stack, folder, large))
    let_expire(stack)
    others = stored(stack) - known
    assert known <= stored(stack)
    assert len(others) == 1, "the stack's own manifest, and nothing else"


def test_uploads_in_pieces_that_are_cut_and_whose_api_is_killed(stack: SimStack, tmp_path: Path) -> None:
    assert PIECES_FAST[-1] > PIECE_BYTES
    all_of_pieces(stack, tmp_path, *PIECES_FAST, large=64 * MIB)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_uploads_in_pieces_that_are_cut_and_whose_api_is_killed_often(
    stack: SimStack, tmp_path: Path
) -> None:
    all_of_pieces(stack, tmp_path, *PIECES_FULL, large=1024 * MIB)
