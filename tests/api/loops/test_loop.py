"""The thread under every loop, and all loops together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from api.domain import tables
from api.domain.blobs import BlobStore
from api.domain.records import JobStatus
from api.domain.tokens import TokenBook
from api.loops.collector import Collector
from api.loops.loop import Loop, WireAway
from api.loops.nudges import MemoryNudges
from api.loops.run import run_loops
from api.loops.singleton import Singleton
from tests.api.domain.library import QUEUE, Library


def until(condition: Callable[[], bool], *, within_s: float = 10.0) -> None:
    """Poll a condition; a watchdog, not a measure."""
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.005)


def test_a_kick_is_quicker_than_the_period() -> None:
    ticks = threading.Semaphore(0)
    loop = Loop("t", lambda: ticks.release(), 3600)
    loop.start()
    for _ in range(3):
        assert ticks.acquire(timeout=10)
        loop.kick()
    loop.ask_to_stop()
    assert loop.join(10)


def test_a_loop_outlives_what_goes_wrong(caplog: pytest.LogCaptureFixture) -> None:
    wrong: list[Exception] = [WireAway("no wire"), WireAway("no wire"), KeyError("bug")]
    closed = threading.Event()

    def tick() -> None:
        if wrong:
            raise wrong.pop(0)

    loop = Loop("t", tick, 0.001, close=closed.set)
    loop.start()
    until(lambda: loop.state.ticks >= 5)
    assert (loop.state.failures, loop.state.error) == (3, None)
    loop.ask_to_stop()
    assert loop.join(10)
    assert closed.is_set()
    levels = [record.levelname for record in caplog.records]
    assert levels.count("ERROR") == 1
    assert levels.count("WARNING") == 1


def test_stopping_twice_is_harmless() -> None:
    loop = Loop("t", lambda: None, 3600)
    loop.ask_to_stop()
    loop.start()
    loop.ask_to_stop()
    assert loop.join(10)


def test_all_loops_together(library: Library) -> None:
    nudges = MemoryNudges()
    job = library.submit(ready=False)
    with run_loops(library.settings, library.store, nudges=nudges) as loops:
        until(lambda: nudges.queues["ingest"] >= 1)
        library.ingest()
        loops.kick()
        until(lambda: nudges.queues[QUEUE] >= 1)
        library.claim()
        until(lambda: library.jobs.get(job.id).status is JobStatus.QUEUED)
        assert {name: state.error for name, state in loops.states().items()} == {
            "dispatcher": None,
            "reaper": None,
            "collector": None,
            "streams": None,
        }
        assert loops.stop()
    held = sa.select(sa.func.count()).select_from(tables.leases)
    assert library.store.read(lambda conn: conn.execute(held).scalar_one()) == 0


def test_the_collector_removes_what_expired(library: Library) -> None:
    new = library.new_job()
    library.jobs.submit(new, key="old")
    tokens = TokenBook(library.store, library.clock.clock())
    tokens.create("ann", lifetime_s=60)
    tokens.create("ann")
    library.clock.advance(8 * 24 * 3600)
    library.jobs.submit(new, key="new")
    blobs = BlobStore(library.settings.blobs_dir)
    clock = library.clock.clock()
    singleton = Singleton(library.store, "collector", ttl_s=10, clock=clock)
    Collector(library.store, blobs, singleton, library.settings, clock).tick()

    def count(table: sa.Table) -> int:
        query = sa.select(sa.func.count()).select_from(table)
        return library.store.read(lambda conn: conn.execute(query).scalar_one())

    assert (count(tables.idempotency_keys), count(tables.api_tokens)) == (1, 1)
