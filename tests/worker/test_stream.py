"""The event stream ends as the journal does, whatever Redis goes through meanwhile."""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.valkey import ValkeyProcess, running_valkey
from worker.journal import Journal
from worker.stream import StreamShipper, StreamTarget

KEY = "trainshed:events:job_1"
TRUST_S = 22.5


class Lease:
    """Counts heartbeats; answers a nudge with one, unless it is lost. Its clock stands where it is put."""

    def __init__(self) -> None:
        self.count = 0
        self.nudges = 0
        self.lost = False
        self.now = 100.0
        self.answered_at = 100.0
        self.questions = 0

    def answered_s_ago(self) -> float:
        self.questions += 1
        return self.now - self.answered_at

    def num_beats(self) -> int:
        return self.count

    def nudge(self) -> None:
        self.nudges += 1
        if not self.lost:
            self.count += 1


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyProcess]:
    with running_valkey() as valkey:
        yield valkey


@pytest.fixture
def valkey(server: ValkeyProcess) -> ValkeyProcess:
    with server.client() as client:
        client.flushall()
    return server


class Writer:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.seq = 0

    def add(self, count: int) -> None:
        with self.path.open("ab") as file:
            for _ in range(count):
                self.seq += 1
                event = {"v": 1, "seq": self.seq, "ts": 0.0, "type": "log", "message": str(self.seq)}
                file.write(json.dumps(event).encode() + b"\n")


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer(tmp_path / "events.jsonl")


def shipper(valkey: ValkeyProcess, writer: Writer, lease: Lease, attempt: int = 1) -> StreamShipper:
    target = StreamTarget(KEY, attempt, 20_000, 600, 60, lambda event: {"e": json.dumps(event)})
    made = StreamShipper(
        Journal(writer.path),
        target,
        lease,
        redis_url=valkey.url,
        poll_s=0.01,
        backoff_s=0.05,
        check_s=0.05,
        trust_s=TRUST_S,
    )
    made.start()
    return made


def ids(valkey: ValkeyProcess) -> list[str]:
    with valkey.client() as client:
        entries: Any = client.xrange(KEY)
        return [entry[0].decode() for entry in entries]


def expected(count: int, attempt: int = 1) -> list[str]:
    return [f"{attempt}-{seq}" for seq in range(1, count + 1)]


def until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "watchdog"
        time.sleep(0.01)


def test_every_line_is_an_entry_with_a_ttl(valkey: ValkeyProcess, writer: Writer) -> None:
    writer.add(250)
    running = shipper(valkey, writer, Lease())
    until(lambda: len(ids(valkey)) == 250)
    with valkey.client() as client:
        assert 60 < client.ttl(KEY) <= 600
    writer.add(5)
    assert running.finish(10)
    assert ids(valkey) == expected(255)
    with valkey.client() as client:
        assert 0 < client.ttl(KEY) <= 60


def test_a_flush_in_mid_run_loses_nothing(valkey: ValkeyProcess, writer: Writer) -> None:
    running = shipper(valkey, writer, Lease())
    writer.add(120)
    until(lambda: len(ids(valkey)) == 120)
    with valkey.client() as client:
        client.flushall()
    writer.add(30)
    until(lambda: len(ids(valkey)) == 150)
    assert running.finish(10)
    assert ids(valkey) == expected(150)


def test_a_flush_after_the_last_event_is_noticed(valkey: ValkeyProcess, writer: Writer) -> None:
    running = shipper(valkey, writer, Lease())
    writer.add(7)
    until(lambda: len(ids(valkey)) == 7)
    with valkey.client() as client:
        client.flushall()
    until(lambda: len(ids(valkey)) == 7)
    assert running.finish(10)
    assert ids(valkey) == expected(7)


def test_a_restart_that_forgot_the_last_entries(valkey: ValkeyProcess, writer: Writer) -> None:
    running = shipper(valkey, writer, Lease())
    writer.add(1)
    until(lambda: len(ids(valkey)) == 1)
    (log,) = valkey.folder.glob("appendonlydir/*.incr.aof")
    synced = log.stat().st_size
    writer.add(39)
    until(lambda: len(ids(valkey)) == 40)
    valkey.kill()
    # What a crash between two syncs leaves: a stream that ends earlier than was acknowledged. It is cut while
    # the server is down, as whoever is connected again has already asked where the stream ends.
    os.truncate(log, synced)
    valkey.start()
    writer.add(10)
    until(lambda: len(ids(valkey)) == 50)
    assert running.finish(10)
    assert ids(valkey) == expected(50)


def test_redis_away_delays_and_gives_up_at_the_end(valkey: ValkeyProcess, writer: Writer) -> None:
    valkey.stop()
    try:
        running = shipper(valkey, writer, Lease())
        writer.add(3)
        assert not running.finish(0.3)
    finally:
        valkey.start()
    late = shipper(valkey, writer, Lease())
    assert late.finish(10)
    assert ids(valkey) == expected(3)


def test_a_missing_stream_is_made_only_with_proof_of_the_lease(valkey: ValkeyProcess, writer: Writer) -> None:
    lease = Lease()
    lease.lost = True
    running = shipper(valkey, writer, lease)
    writer.add(5)
    until(lambda: lease.nudges > 0)
    assert not running.finish(0.3)
    assert ids(valkey) == []


def test_a_zombie_adds_nothing_to_a_later_attempt(valkey: ValkeyProcess, writer: Writer) -> None:
    writer.add(3)
    assert shipper(valkey, writer, Lease(), attempt=2).finish(10)
    zombie = shipper(valkey, writer, Lease(), attempt=1)
    assert not zombie.finish(5)
    assert ids(valkey) == expected(3, attempt=2)
    assert shipper(valkey, writer, Lease(), attempt=3).finish(10)
    assert ids(valkey) == expected(3, attempt=2) + expected(3, attempt=3)


def test_no_events_at_all(valkey: ValkeyProcess, writer: Writer) -> None:
    assert shipper(valkey, writer, Lease()).finish(5)
    assert ids(valkey) == []


def test_whoever_slept_for_half_a_lease_ships_nothing_until_a_heartbeat_is_answered(
    valkey: ValkeyProcess, writer: Writer
) -> None:
    lease = Lease()
    running = shipper(valkey, writer, lease)
    writer.add(4)
    until(lambda: len(ids(valkey)) == 4)
    # As after SIGSTOP and SIGCONT: the clock ran on, no heartbeat has been answered since.
    lease.now += TRUST_S + 0.1
    writer.add(6)
    asked = lease.questions
    until(lambda: lease.questions > asked + 5)
    assert ids(valkey) == expected(4)
    lease.answered_at = lease.now
    until(lambda: len(ids(valkey)) == 10)
    lease.now += TRUST_S
    writer.add(1)
    until(lambda: len(ids(valkey)) == 11)
    assert running.finish(10)
    assert ids(valkey) == expected(11)


def test_a_claim_in_doubt_to_the_end_leaves_the_rest_in_the_journal(
    valkey: ValkeyProcess, writer: Writer
) -> None:
    lease = Lease()
    lease.now += TRUST_S + 0.1
    running = shipper(valkey, writer, lease)
    writer.add(3)
    until(lambda: lease.questions > 5)
    assert not running.finish(0.2)
    assert ids(valkey) == []


def test_a_sleeper_does_not_make_the_stream_anew(valkey: ValkeyProcess, writer: Writer) -> None:
    lease = Lease()
    running = shipper(valkey, writer, lease)
    writer.add(4)
    until(lambda: len(ids(valkey)) == 4)
    lease.now += TRUST_S + 0.1
    # A heartbeat is counted on the nudge, but its answer is an old one.
    nudges = lease.nudges
    with valkey.client() as client:
        client.flushall()
    until(lambda: lease.nudges > nudges)
    asked = lease.questions
    until(lambda: lease.questions > asked + 5)
    assert ids(valkey) == []
    lease.answered_at = lease.now
    assert running.finish(10)
    assert ids(valkey) == expected(4)
