"""Why a job waits, how many are before it, and when it may start."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection

from api.domain import tables as t
from api.domain.failures import Failure, FailureCode
from api.domain.fleet import WorkerBook
from api.domain.records import Job, JobStatus, QueueState, Waiting, WaitingReason
from tests.api.domain.conftest import OpenBooks
from tests.api.domain.library import OTHER, QUEUE, Library

CRASH = Failure(FailureCode.CRASHED, "signal 11")


def slot(library: Library, number: int = 0, *, state: str = "idle", queue: str = QUEUE) -> None:
    book = WorkerBook(library.store, library.clock.clock())
    book.announce(f"h/{queue}/{number}", queue=queue, host="h", pid=1, version="0", state=state)


def reasons(library: Library, *jobs: Job) -> dict[str, Waiting | None]:
    return {job.id: reason for job, reason in library.jobs.waiting(jobs)}


def why(library: Library, job: Job) -> Waiting:
    reason = reasons(library, library.jobs.get(job.id))[job.id]
    assert reason is not None
    return reason


def ran(library: Library, seconds: float) -> None:
    """Leave a job that took so long."""
    job_id = library.running().job.id
    library.clock.advance(seconds)
    library.jobs.finish(job_id, 1)


def test_nothing_waits_that_is_not_queued(library: Library) -> None:
    paused, running = library.submit(), library.running().job
    library.jobs.pause(paused.id)
    now = [library.jobs.get(paused.id), running]
    assert library.jobs.waiting(now) == [(job, None) for job in now]
    assert library.jobs.waiting([]) == []


def test_a_job_that_moved_on_since_it_was_read_is_told_as_it_is(library: Library) -> None:
    claimed, deleted, other = (library.submit() for _ in range(3))
    library.claim()
    library.jobs.cancel(deleted.id)
    library.jobs.delete(deleted.id)
    seen = library.jobs.waiting([claimed, deleted, other])
    assert [(job.id, job.status) for job, _ in seen] == [
        (claimed.id, JobStatus.RUNNING),
        (deleted.id, JobStatus.QUEUED),
        (other.id, JobStatus.QUEUED),
    ]
    assert [reason.position if reason else None for _, reason in seen] == [None, None, 1]


@pytest.mark.parametrize("open_books", ["postgresql"], indirect=True)
def test_a_read_sees_one_moment(library: Library) -> None:
    # On SQLite nobody can write while a rollback journal is read; a WAL's reader keeps its snapshot.
    job = library.submit()

    def look_twice(conn: Connection) -> tuple[int, int]:
        revision = sa.select(t.jobs.c.revision).where(t.jobs.c.id == job.id)
        first = conn.execute(revision).scalar_one()
        library.claim()
        return first, conn.execute(revision).scalar_one()

    first, second = library.store.read(look_twice)
    assert first == second < library.jobs.get(job.id).revision


def test_a_dataset_and_a_retry(library: Library) -> None:
    job = library.submit(ready=False)
    slot(library)
    assert why(library, job) == Waiting(WaitingReason.DATASET)
    library.ingest()
    assert why(library, job) == Waiting(WaitingReason.WORKER, 1, library.clock.now)
    library.claim()
    library.jobs.fail(job.id, 1, CRASH)
    due = library.jobs.get(job.id).not_before
    assert due is not None and 0.08 <= due - library.clock.now <= 0.12
    assert why(library, job) == Waiting(WaitingReason.RETRY, None, due)


@pytest.mark.parametrize("state", ["gone", "unhealthy", "draining"])
def test_no_worker_that_takes_work(library: Library, state: str) -> None:
    job = library.submit()
    slot(library, queue="train.g1")
    slot(library, state=state)
    assert why(library, job) == Waiting(WaitingReason.NO_WORKER, 1)


def test_a_silent_worker_is_none(library: Library) -> None:
    job = library.submit()
    slot(library)
    library.clock.advance(100)
    assert why(library, job).reason is WaitingReason.NO_WORKER


def test_an_owner_at_its_limit_waits_for_itself(open_books: OpenBooks) -> None:
    with open_books(max_running_per_owner=1) as library:
        library.running()
        second, other = library.submit(), library.submit(owner=OTHER)
        slot(library)
        assert why(library, second) == Waiting(WaitingReason.OWNER_LIMIT)
        assert why(library, other) == Waiting(WaitingReason.WORKER, 1, library.clock.now)


def test_positions_are_the_order_of_claims(library: Library) -> None:
    low, old, new, high = (library.submit(priority=number) for number in (-1, 0, 0, 7))
    elsewhere, paused = library.submit(queue="train.g1"), library.submit(priority=9)
    library.jobs.pause(paused.id)
    jobs = [library.jobs.get(job.id) for job in (low, old, new, high, elsewhere, paused)]
    found = {job.id: reason.position for job, reason in library.jobs.waiting(jobs) if reason}
    assert [found[job.id] for job in (high, old, new, low, elsewhere)] == [1, 2, 3, 4, 1]
    # What others wait for changes nothing about a page of one.
    assert why(library, low).position == 4
    assert [library.claim().job.id for _ in range(4)] == [high.id, old.id, new.id, low.id]


def test_the_start_is_estimated_from_recent_runs(library: Library) -> None:
    jobs = [library.submit() for _ in range(4)]
    for seconds in (100, 60, 1000):
        library.jobs.pause(jobs[0].id)
        for job in jobs[1:]:
            library.jobs.pause(job.id)
        ran(library, seconds)
    for job in jobs:
        library.jobs.activate(job.id)
    slot(library, 0, state="busy")
    slot(library, 1)
    assert library.claim().job.id == jobs[0].id
    slot(library, 1)
    library.clock.advance(30)
    slot(library, 0, state="busy")
    slot(library, 1)
    now = library.clock.now
    # One place is free, one is after 70 s more, then each after 100 s again.
    waits = [why(library, job).starts_at for job in jobs[1:]]
    assert waits == [now, now + 70, now + 100]
    slot(library, 1, state="busy")
    assert library.jobs.queues() == [QueueState(QUEUE, 3, 1, 2, 0, 100.0)]


def test_without_a_past_nothing_is_foretold(library: Library) -> None:
    library.running()
    job = library.submit()
    slot(library, state="busy")
    assert why(library, job) == Waiting(WaitingReason.WORKER, 1, None)


def test_many_jobs_take_as_many_queries_as_one(library: Library) -> None:
    jobs = [library.submit() for _ in range(12)]
    slot(library)
    statements: list[str] = []

    @event.listens_for(library.store.engine, "before_cursor_execute")
    def count(_conn: object, _cursor: object, statement: str, *_more: object) -> None:
        statements.append(statement)

    library.jobs.waiting(jobs[:1])
    of_one, statements[:] = len(statements), []
    library.jobs.waiting(jobs)
    assert len(statements) == of_one <= 8


def test_queues(library: Library) -> None:
    assert library.jobs.queues() == []
    slot(library, queue="train.g2")
    library.submit()
    assert library.jobs.queues() == [
        QueueState(QUEUE, 1, 0, 0, 0, None),
        QueueState("train.g2", 0, 0, 1, 1, None),
    ]
