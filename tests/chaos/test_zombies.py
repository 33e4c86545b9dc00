"""Workers stopped for longer than their claim lasts, that go on when the job is no longer theirs.

A stopped worker keeps its child alive: while the worker stands still the child trains on, and may even end
well. When the worker goes on it holds a journal, files and a success of an attempt that is over, and must
store nothing of it: no row, no event, no archive, no artifact.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.client import Job
from tests.chaos.sim_stack import SimStack
from tests.chaos.watching import Watcher
from tests.support.figures import record
from tests.support.members import Program, until
from tests.support.stored import Stored, stored

LEASE_S = 2.0
REQUEUE_S = LEASE_S + 5.0
PACE = {"batches": 10, "batch_s": 0.01}
HELD = (1, 5)


@contextlib.contextmanager
def sim_stack(folder: Path, workers: int, book_url: str | None) -> Iterator[SimStack]:
    periods = {"lease_s": LEASE_S, "reaper_gap_s": 1.5}
    with SimStack(folder / "data", workers=workers, database_url=book_url, **periods) as stack:
        yield stack


def freeze(stack: SimStack, member: Program) -> None:
    """Stop a worker, at a moment when it holds no lock of the book.

    One that stood still inside a transaction would keep SQLite from everybody: nothing would be lost, but
    nothing would be taken back either.
    """
    for _ in range(50):
        member.suspend()
        time.sleep(0.05)
        if is_writable(stack):
            return
        member.resume()
        time.sleep(0.03)
    raise AssertionError("the worker was always in the middle of a transaction")


def is_writable(stack: SimStack) -> bool:
    book = sqlite3.connect(stack.settings.data_dir / "book.sqlite3", timeout=0.5, isolation_level=None)
    with contextlib.closing(book):
        try:
            book.execute("BEGIN IMMEDIATE")
            book.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return False
    return True


def start_and_freeze(stack: SimStack) -> tuple[Job, Watcher, Program]:
    """Bring a job to the middle of an epoch and stop its worker there."""
    stack.set_pace(**PACE, hold=HELD)
    (job,) = stack.submit(epochs=3)
    watcher = Watcher(stack, job.id)
    stack.await_place(job.id, HELD[0], HELD[1] - 1)
    worker = stack.worker_of(job.id)
    freeze(stack, worker)
    return job, watcher, worker


def await_taken_back(stack: SimStack, job: Job) -> None:
    since = time.monotonic()
    until(lambda: stack.state(job.id) != ("running", 1), "the claim to be taken back", 30)
    record("worker stopped: work queued again", time.monotonic() - since, "s", REQUEUE_S)


def let_the_child_end(stack: SimStack, job: Job) -> None:
    """Let attempt 1, whose worker stands still, train to its end and write all it has to tell."""
    stack.set_pace(**PACE)
    result = stack.attempt_folder(job.id, 1) / "result.json"
    until(result.is_file, "the end of the child")
    assert stack.journal(job.id, 1)[-1]["seq"] > 20


def assert_nothing_added(before: Stored, after: Stored) -> None:
    assert after.of_attempt(1) == before.of_attempt(1)
    # How it ended was written by the reaper, and stands.
    assert after.rows["job_attempts"][0] == before.rows["job_attempts"][0]
    assert [row for row in after.rows["artifacts"] if row[1] == 1] == []


def await_zombie_s_end(stack: SimStack, worker: Program, job: Job) -> None:
    """Wait until a worker that goes on has understood, has no child of attempt 1 left, and rests."""
    until(lambda: not stack.children(job.id, 1), "the end of the zombie's child", 15)
    sql = "SELECT state FROM workers WHERE pid = :pid"
    until(lambda: stack.query(sql, pid=worker.pid) == [("idle",)], "the zombie to give up", 15)
    # Whatever it would still send, it would send now.
    time.sleep(1.0)


def test_a_zombie_that_wakes_before_the_next_claim_stores_nothing(
    tmp_path: Path, book_url: str | None
) -> None:
    with sim_stack(tmp_path, workers=1, book_url=book_url) as stack:
        job, watcher, worker = start_and_freeze(stack)
        # Still in the middle of its epoch, with more to tell than its worker has read.
        stack.set_pace(**PACE, hold=(2, 5))
        until(lambda: stack.journal(job.id, 1)[-1].get("epoch") == 2, "the child to go on by itself")
        await_taken_back(stack, job)
        before = stored(stack, job.id)
        assert stack.state(job.id) == ("queued", 1)
        since = time.monotonic()
        worker.resume()
        until(lambda: not stack.children(job.id, 1), "the end of the zombie's child", 15)
        record("worker continued: child of the lost attempt gone", time.monotonic() - since, "s", 1.0)
        stack.await_state(job.id, "running", attempt=2)
        assert_nothing_added(before, stored(stack, job.id))
        stack.set_pace(**PACE)
        stack.await_state(job.id, "succeeded")
        assert_nothing_added(before, stored(stack, job.id))
        assert stack.assert_whole(job, watchers=[watcher]) == 2


def test_a_finished_zombie_that_wakes_before_the_next_claim_stores_nothing(
    tmp_path: Path, book_url: str | None
) -> None:
    with sim_stack(tmp_path, workers=1, book_url=book_url) as stack:
        job, watcher, worker = start_and_freeze(stack)
        let_the_child_end(stack, job)
        await_taken_back(stack, job)
        before = stored(stack, job.id)
        worker.resume()
        stack.await_state(job.id, "succeeded")
        assert_nothing_added(before, stored(stack, job.id))
        assert stack.assert_whole(job, watchers=[watcher]) == 2


def test_a_zombie_that_wakes_beside_the_next_attempt_stores_nothing(
    tmp_path: Path, book_url: str | None
) -> None:
    with sim_stack(tmp_path, workers=2, book_url=book_url) as stack:
        job, watcher, worker = start_and_freeze(stack)
        let_the_child_end(stack, job)
        stack.set_pace(**PACE, hold=(2, 2))
        await_taken_back(stack, job)
        stack.await_place(job.id, 2, 1, attempt=2)
        before = stored(stack, job.id)
        worker.resume()
        await_zombie_s_end(stack, worker, job)
        assert stack.state(job.id) == ("running", 2) and stack.child_of(job.id, 2).is_running()
        assert_nothing_added(before, stored(stack, job.id))
        stack.set_pace(**PACE)
        stack.await_state(job.id, "succeeded")
        assert stack.assert_whole(job, watchers=[watcher]) == 2


@pytest.mark.parametrize("ended", [True, False], ids=["child ended", "child still trains"])
def test_a_zombie_that_wakes_after_the_end_changes_nothing(
    tmp_path: Path, book_url: str | None, ended: bool
) -> None:
    with sim_stack(tmp_path, workers=2, book_url=book_url) as stack:
        job, watcher, worker = start_and_freeze(stack)
        if ended:
            let_the_child_end(stack, job)
        await_taken_back(stack, job)
        if not ended:
            # Where the next attempt goes on it is not held, the zombie's child never gets there.
            stack.await_place(job.id, 0, 0, attempt=1)
            stack.set_pace(**PACE, faults=[{"attempt": 1, "epoch": 1, "batch": 6, "how": "hang"}])
        stack.await_state(job.id, "succeeded")
        stack.assert_whole(job, watchers=[watcher])
        before = stored(stack, job.id)
        assert bool(stack.children(job.id, 1)) is not ended
        worker.resume()
        await_zombie_s_end(stack, worker, job)
        assert stored(stack, job.id) == before
        assert stack.assert_whole(job) == 2
        assert stack.children() == []
