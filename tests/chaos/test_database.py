"""The database locked or stopped in mid-training: it goes on, nobody is taken for dead, rows are complete.

And the other side of that patience: how soon a worker that is dead is noticed.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from api.client import Job
from api.client.errors import ApiError
from api.domain.settings import BOOK_NAME, Settings
from tests.chaos.sim_stack import PERIODS, SimStack
from tests.chaos.watching import Watcher
from tests.support.figures import record
from tests.support.members import until
from tests.support.postgres import make_server

PACE: dict[str, Any] = {"batches": 50, "batch_s": 0.02}
# Well over the lease of these tests: whoever judged by silence alone would have taken the job back.
AWAY_S = 1.5 * PERIODS["lease_s"]
# Two jobs run: one that ends while the database is away, one that goes on after.
ENDS_MEANWHILE, ENDS_AFTER = 3, 9


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the write lock of a SQLite book."""
    with closing(sqlite3.connect(folder / BOOK_NAME, timeout=15, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def begin(stack: SimStack) -> tuple[list[Job], list[Watcher]]:
    """Let both jobs train, each with a watcher, to the middle of their second epoch."""
    stack.set_pace(**PACE)
    jobs = [*stack.submit(epochs=ENDS_MEANWHILE), *stack.submit(epochs=ENDS_AFTER)]
    watchers = [Watcher(stack, job.id, give_up_s=60) for job in jobs]
    for job in jobs:
        stack.await_place(job.id, 1, 10)
    return jobs, watchers


def num_batches(stack: SimStack, job: Job) -> int:
    """Return how many batches a first attempt has told."""
    lines = [line for line in stack.journal(job.id, 1) if line["type"] == "batch"]
    return int(lines[-1]["epoch"] * PACE["batches"] + lines[-1]["batch"])


def stay_away(stack: SimStack, jobs: list[Job]) -> None:
    """Wait as long as the database is away, and see that both jobs trained on."""
    before = num_batches(stack, jobs[1])
    began = time.monotonic()
    time.sleep(AWAY_S)  # the length of the outage
    pace = (num_batches(stack, jobs[1]) - before) / (time.monotonic() - began)
    record("batches a second while the database is away, of 50", pace, "1/s", 30, at_least=True)
    assert pace > 10
    assert num_batches(stack, jobs[0]) == ENDS_MEANWHILE * PACE["batches"] - 1


def end_well(stack: SimStack, jobs: list[Job], watchers: list[Watcher], what: str) -> None:
    """See that both jobs end in the attempt they were in, rows and events complete."""
    back = time.monotonic()
    stack.await_state(jobs[0].id, "succeeded")
    record(f"{what}: the job that ended meanwhile is written down after", time.monotonic() - back, "s", 5)
    stack.await_state(jobs[1].id, "succeeded")
    for job, watcher in zip(jobs, watchers, strict=True):
        assert stack.assert_whole(job, attempts=1, watchers=[watcher]) == 1


@pytest.mark.parametrize("busy_s", [0.3, 15.0], ids=["short-of-patience", "patient"])
def test_sqlite_is_locked_for_longer_than_a_lease(tmp_path: Path, busy_s: float) -> None:
    with SimStack(tmp_path / "data", workers=2, sqlite_busy_timeout_s=busy_s) as stack:
        jobs, watchers = begin(stack)
        with locked(stack.folder):
            stay_away(stack, jobs)
        end_well(stack, jobs, watchers, "SQLite locked")


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_postgresql_is_away_for_longer_than_a_lease(tmp_path: Path, how: str) -> None:
    # Durable: a killed server without that forgets what it has answered for.
    with make_server(durable=how == "kill") as postgres:
        url = postgres.new_database("away")
        with SimStack(tmp_path / "data", workers=2, database_url=url) as stack:
            jobs, watchers = begin(stack)
            postgres.stop() if how == "stop" else postgres.kill()
            with stack.client() as client, pytest.raises(ApiError) as refusal:
                client.submit(stack.request())
            assert refusal.value.status == 503
            stay_away(stack, jobs)
            postgres.start()
            end_well(stack, jobs, watchers, f"PostgreSQL {how}")
            (later,) = stack.submit(epochs=1)
            stack.await_state(later.id, "succeeded")


def kill_and_await(stack: SimStack, job: Job) -> float:
    """Kill the worker of a job and return the seconds until the job is queued again."""
    attempt = stack.state(job.id)[1]
    stack.worker_of(job.id).kill()
    return until(lambda: stack.state(job.id) != ("running", attempt), "the job to be taken back", 120)


def test_a_dead_worker_is_noticed_in_time(tmp_path: Path) -> None:
    periods: dict[str, Any] = {"lease_s": 2.0, "reaper_tick_s": 0.2, "reaper_gap_s": 1.0}
    with SimStack(tmp_path / "data", workers=3, **periods) as stack:
        stack.set_pace(**PACE, hold=(0, 20))
        late = []
        (job,) = stack.submit(epochs=1)
        for attempt in (1, 2):
            stack.await_place(job.id, 0, 19, attempt=attempt)
            late.append(kill_and_await(stack, job) - periods["lease_s"])
        stack.set_pace(**PACE)
        stack.await_state(job.id, "succeeded")
        assert stack.assert_whole(job, attempts=3) == 3
    record("a dead worker is noticed, beyond the lease (ticks of 0.2 s)", max(late), "s", 0.4)
    made = Settings()
    # What is late beside the ticks does not grow with the periods.
    beside = max(0.0, max(late) - 2 * periods["reaper_tick_s"])
    expected = made.lease_s + 2 * made.reaper_tick_s + beside
    record("and so with the periods of production", expected, "s", 50)
    assert expected < 55


@pytest.mark.slow
def test_a_dead_worker_is_noticed_in_time_with_the_periods_of_production(tmp_path: Path) -> None:
    made = Settings()
    names = ("heartbeat_s", "lease_s", "reaper_tick_s", "reaper_gap_s", "singleton_s", "dispatcher_tick_s")
    with SimStack(tmp_path / "data", workers=2, **{name: getattr(made, name) for name in names}) as stack:
        stack.set_pace(**PACE, hold=(0, 20))
        (job,) = stack.submit(epochs=1)
        stack.await_place(job.id, 0, 19)
        took = kill_and_await(stack, job)
        record("a dead worker's job is queued again, with the periods of production", took, "s", 50)
        assert took < 60
        stack.set_pace(**PACE)
        stack.await_state(job.id, "succeeded")
        assert stack.assert_whole(job, attempts=2) == 2
