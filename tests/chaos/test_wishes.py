"""Every wish (cancel, stop, pause, activate) in every state, through the whole stack, and with a crash.

What follows is the table of the design: cancel ends as cancelled, stop as succeeded with the weights of the
best where there is one and as cancelled where there is none, pause as paused, and a job that nobody wished
anything of goes on. A crash of the child or of the worker right after the wish changes nothing of that, and
neither does it that no trainer runs: then the next attempt delivers the weights.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import pytest

from api.client import ApiError, Job
from tests.chaos.conftest import NewBook
from tests.chaos.outcome import FINAL
from tests.chaos.sim_stack import SimStack
from tests.support.figures import record, record_spread
from tests.support.members import Program, living, until

WISHES = ("cancel", "stop", "pause", "activate")
PACE = {"batches": 10, "batch_s": 0.01}
LEASE_S = 2.0
CANCEL_S = 5.0
Crash = Literal["child", "worker"]


@dataclass(frozen=True)
class Place:
    """Where a run is held, and whether it has a best epoch by then."""

    hold: tuple[int, int]
    has_best: bool


EARLY = Place((0, 5), has_best=False)
LATE = Place((1, 5), has_best=True)


def end_of(wish: str, *, has_best: bool) -> str:
    """Return the state a wish leads to; activate lets the job go on to its own end."""
    stopped = "succeeded" if has_best else "cancelled"
    return {"cancel": "cancelled", "stop": stopped, "pause": "paused", "activate": "succeeded"}[wish]


def put_wish(stack: SimStack, job: Job, wish: str) -> Job:
    with stack.client() as client:
        told: Job = getattr(client, wish)(job.id)
        return told


def start_and_hold(stack: SimStack, place: Place, count: int = len(WISHES)) -> list[Job]:
    """Bring jobs to one place of their runs, where they stand still."""
    stack.set_pace(**PACE, hold=place.hold)
    jobs = stack.submit(count, epochs=3)
    for job in jobs:
        stack.await_place(job.id, place.hold[0], place.hold[1] - 1)
        if place.has_best:
            # Not only in its journal.
            await_best(stack, job)
    return jobs


def await_best(stack: SimStack, job: Job) -> None:
    """Wait until the book has a best epoch of a job."""

    def has_best() -> bool:
        ((pointer,),) = stack.query("SELECT pointer FROM jobs WHERE id = :id", id=job.id)
        # SQLite has JSON as text, PostgreSQL as what it means.
        found = json.loads(pointer) if isinstance(pointer, str) else pointer
        return found is not None and found["best"] is not None

    until(has_best, "the best of a job")


def assert_ends(stack: SimStack, jobs: Sequence[Job], place: Place) -> None:
    """See that each wish was granted, in order of `WISHES`; a paused job can be let go on to its end."""
    for job, wish in zip(jobs, WISHES, strict=True):
        if wish == "activate":
            stack.set_pace(job.id, **PACE)
        expected = end_of(wish, has_best=place.has_best)
        stack.await_state(job.id, {*FINAL, "paused"})
        assert stack.state(job.id)[0] == expected, (wish, stack.transitions(job.id))
        assert stack.children(job.id) == []
        if wish == "stop" and place.has_best:
            assert_keeps_best(stack, job)
        elif wish == "pause":
            stack.set_pace(job.id, **PACE)
            assert put_wish(stack, job, "activate").status == "queued"
            stack.await_state(job.id, FINAL)
        if wish in ("pause", "activate"):
            stack.assert_whole(job)
        ends = [item["to"] for item in stack.transitions(job.id) if item["to"] in FINAL]
        assert len(ends) == 1


def assert_keeps_best(stack: SimStack, job: Job) -> None:
    """See that a stopped job tells its best epoch and delivers its weights."""
    with stack.client() as client:
        assert client.metrics(job.id), "no epoch is left"
        ended = client.job(job.id).as_json()
        assert ended["best"] is not None and ended["wish"] is None
        assert [found.kind for found in client.artifacts(job.id) if found.name == "best.pt"] == ["weights"]
    stack.assert_trail(job.id)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory, new_book: NewBook) -> Iterator[SimStack]:
    folder = tmp_path_factory.mktemp("wishes") / "data"
    periods = {"lease_s": LEASE_S, "reaper_gap_s": 1.5}
    with SimStack(folder, workers=4, database_url=new_book(), **periods) as stack:
        yield stack


@pytest.mark.parametrize("place", [EARLY, LATE], ids=["no best", "best"])
def test_wishes_on_a_running_job(four: SimStack, place: Place) -> None:
    jobs = start_and_hold(four, place)
    for job, wish in zip(jobs, WISHES, strict=True):
        child = four.child_of(job.id)
        since = time.monotonic()
        put_wish(four, job, wish)
        if wish == "cancel":
            four.await_state(job.id, "cancelled")
            assert living([child]) == []
            record("cancel acted on, short periods", time.monotonic() - since, "s", CANCEL_S)
    assert_ends(four, jobs, place)
    assert [four.state(job.id)[1] for job in jobs] == [1, 1, 2, 1]


@pytest.mark.parametrize("place", [EARLY, LATE], ids=["no best", "best"])
@pytest.mark.parametrize("crash", ["child", "worker"])
def test_a_crash_right_after_a_wish(four: SimStack, crash: Crash, place: Place) -> None:
    jobs = start_and_hold(four, place)
    for job, wish in zip(jobs, WISHES, strict=True):
        worker, child = four.worker_of(job.id), four.child_of(job.id)
        put_wish(four, job, wish)
        strike(four, crash, worker, child)
    assert_ends(four, jobs, place)
    ensure_all_serve(four)


def strike(stack: SimStack, crash: Crash, worker: Program, child: psutil.Process) -> None:
    if crash == "child":
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    else:
        worker.kill()
        # Whoever comes back may have to run the job again.
        worker.start()


def ensure_all_serve(stack: SimStack) -> None:
    for worker in stack.of("worker"):
        stack.await_ready(worker.name)


def occupy(stack: SimStack) -> Job:
    """Keep the only worker busy with a job that stands still."""
    (job,) = stack.submit(epochs=1)
    stack.set_pace(job.id, **PACE, hold=(0, 1))
    stack.await_state(job.id, "running")
    return job


def let_go(stack: SimStack, job: Job) -> None:
    stack.set_pace(job.id, **PACE)
    stack.await_state(job.id, "succeeded")


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory, new_book: NewBook) -> Iterator[SimStack]:
    folder = tmp_path_factory.mktemp("single") / "data"
    # A failed job waits for longer than any test does.
    with SimStack(folder, workers=1, database_url=new_book(), retry_backoff_s=300.0) as stack:
        yield stack


def assert_waiting_ends(stack: SimStack, jobs: Sequence[Job], *, has_best: bool) -> None:
    """See that wishes on jobs that wait are granted at once, and let go on what may.

    A stop that is to keep a best stands until a worker is there for it.
    """
    for job, wish in zip(jobs, WISHES, strict=True):
        told = put_wish(stack, job, wish)
        stands = wish == "stop" and has_best
        expected = "queued" if stands or wish == "activate" else end_of(wish, has_best=has_best)
        assert (told.status, told.wish) == (expected, "stop" if stands else None), wish
        if not stands:
            assert stack.state(job.id)[0] == expected


def end_of_attempts(stack: SimStack, job: Job) -> list[str]:
    return [attempt["outcome"] for attempt in stack.attempts(job.id)]


@pytest.mark.parametrize("has_best", [False, True], ids=["no best", "best"])
@pytest.mark.parametrize("state", ["queued", "paused"])
def test_wishes_on_a_job_that_waits(single: SimStack, state: str, has_best: bool) -> None:
    single.set_pace(**PACE, hold=LATE.hold if has_best else (0, 1))
    jobs = []
    if has_best:
        # One after another, each is paused in its second epoch.
        for _ in WISHES:
            (job,) = start_and_hold(single, LATE, 1)
            put_wish(single, job, "pause")
            single.await_state(job.id, "paused")
            jobs.append(job)
    blocker = occupy(single)
    jobs = jobs or single.submit(len(WISHES), epochs=3)
    for job in jobs:
        put_wish(single, job, "pause" if state == "paused" else "activate")
        assert single.state(job.id)[0] == state
    assert_waiting_ends(single, jobs, has_best=has_best)
    _, stopped, held, active = jobs
    for job in (held, active):
        single.set_pace(job.id, **PACE)
    let_go(single, blocker)
    if has_best:
        # It would stand still in its second epoch, were it not for the wish.
        single.await_state(stopped.id, "succeeded", attempt=2)
        assert_keeps_best(single, stopped)
        assert end_of_attempts(single, stopped) == ["paused", "succeeded"]
    single.await_state(active.id, FINAL)
    single.assert_whole(active)
    assert single.state(held.id)[0] == "paused"
    assert put_wish(single, held, "activate").status == "queued"
    single.await_state(held.id, FINAL)
    single.assert_whole(held)


def test_wishes_on_a_job_that_waits_for_its_next_attempt(single: SimStack) -> None:
    # Late enough for its first epoch to be in the journal, which is written five times a second.
    single.set_pace(batches=10, batch_s=0.05, faults=[{"attempt": 1, "epoch": 1, "batch": 9, "how": "kill"}])
    jobs = single.submit(len(WISHES), epochs=3)
    for job in jobs:
        single.await_state(job.id, "queued", attempt=1)
    assert {single.state(job.id) for job in jobs} == {("queued", 1)}
    assert_waiting_ends(single, jobs, has_best=True)
    _, stopped, held, active = jobs
    # So has stopping: its trainer was killed before it could deliver anything.
    single.await_state(stopped.id, "succeeded")
    assert_keeps_best(single, stopped)
    assert end_of_attempts(single, stopped) == ["failed", "succeeded"]
    # Activating has ended the wait, which would have taken minutes.
    single.await_state(active.id, "succeeded")
    assert single.assert_whole(active) == 2
    put_wish(single, held, "activate")
    single.await_state(held.id, "succeeded")
    assert single.assert_whole(held) == 2


def test_wishes_on_a_job_that_has_ended(single: SimStack) -> None:
    single.set_pace(**PACE, faults=[{"attempt": 1, "epoch": 0, "batch": 5, "how": "nan"}])
    (failed,) = single.submit(epochs=1)
    single.await_state(failed.id, "failed")
    single.set_pace(**PACE)
    (done,) = single.submit(epochs=1)
    single.await_state(done.id, "succeeded")
    (dropped,) = single.submit(epochs=1)
    put_wish(single, dropped, "cancel")
    single.await_state(dropped.id, FINAL)
    for job in (failed, done, dropped):
        before = single.state(job.id)
        trail = single.transitions(job.id)
        for wish in WISHES:
            # What it has come to already can be wished for again.
            with contextlib.suppress(ApiError):
                told = put_wish(single, job, wish)
                assert (wish, told.status) in {
                    ("cancel", "cancelled"), ("stop", "cancelled"), ("stop", "succeeded")
                }  # fmt: skip
            assert single.state(job.id) == before
        assert single.transitions(job.id) == trail


# ---- the bound at production periods

PRODUCTION = {
    "heartbeat_s": 2.0,
    "lease_s": 45.0,
    "reaper_tick_s": 2.0,
    "reaper_gap_s": 15.0,
    "dispatcher_tick_s": 1.0,
    "singleton_s": 10.0,
    "retry_backoff_s": 10.0,
    "checkpoint_every_s": 60.0,
    "stop_grace_s": 60.0,
}


@pytest.mark.slow
def test_a_cancel_is_acted_on_within_five_seconds_at_production_periods(tmp_path: Path) -> None:
    with SimStack(tmp_path / "data", workers=2, **PRODUCTION) as stack:
        stack.set_pace(batches=1000, batch_s=0.05)
        taken = []
        for number in range(8):
            (job,) = stack.submit(epochs=100)
            stack.await_place(job.id, 0, 1)
            # At every phase of the heartbeat.
            time.sleep(0.25 * number)
            child = stack.child_of(job.id)
            since = time.monotonic()
            put_wish(stack, job, "cancel")
            until(lambda child=child: not living([child]), "the end of the child", 5 * CANCEL_S)
            stack.await_state(job.id, "cancelled")
            taken.append(time.monotonic() - since)
        record_spread("cancel acted on, production periods", taken, "s", CANCEL_S)
        assert max(taken) <= CANCEL_S


@pytest.mark.slow
def test_a_dead_worker_is_noticed_within_fifty_seconds_at_production_periods(tmp_path: Path) -> None:
    with SimStack(tmp_path / "data", workers=2, **PRODUCTION) as stack:
        stack.set_pace(batches=1000, batch_s=0.05)
        jobs = stack.submit(2, epochs=3)
        for job in jobs:
            stack.await_place(job.id, 0, 1)
        since = {}
        for job in jobs:
            worker = stack.worker_of(job.id)
            since[job.id] = time.monotonic()
            worker.kill()
        taken = []
        for job in jobs:
            until(lambda job=job: stack.state(job.id) == ("queued", 1), "the job to be queued", 100)
            taken.append(time.monotonic() - since[job.id])
        record_spread("worker killed: work queued again, production periods", taken, "s", 50.0)
        assert max(taken) <= 50.0
