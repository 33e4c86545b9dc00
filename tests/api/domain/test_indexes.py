"""What is asked each second, and what lists ask, is answered from an index on both databases.

The plans are those of the statements that the books really send, with their parameters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection

from api.domain.records import JobStatus
from api.domain.retention import RetentionBook
from api.domain.settings import DAY
from tests.api.domain.conftest import OpenBooks
from tests.api.domain.library import OTHER, OWNER, QUEUE, Library
from tests.support.crowd import copy_job, number

MANY = 4000


def crowd(library: Library) -> Library:
    """Fill a book with finished jobs of two owners, and a few that wait and run."""
    job_id = library.running().job.id
    library.jobs.finish(job_id, 1)
    ended = library.clock.now
    owner = sa.case((number % 2 == 0, OWNER), else_=OTHER)
    status = sa.case((number % 50 == 0, "failed"), else_="succeeded")
    library.clock.advance(100 * DAY)
    copy_job(library.store, job_id, MANY, owner=owner, status=status, finished_at=ended + 60 * number)
    for priority in (0, 3, 1):
        library.submit(priority=priority)
    library.running()
    library.submit(owner=OTHER)
    return library


@pytest.fixture
def crowded(open_books: OpenBooks) -> Iterator[Library]:
    """A book with thousands of jobs, in which an owner has a limit."""
    with open_books(max_running_per_owner=3) as library:
        yield crowd(library)


CALLS: dict[str, tuple[Callable[[Library], object], str]] = {
    "claim": (lambda b: b.jobs.claim(QUEUE, "w"), "ix_jobs_eligible"),
    "due": (lambda b: b.jobs.count_due(), "ix_jobs_eligible|ix_jobs_status_id"),
    "running": (lambda b: b.jobs.held(), "ix_jobs_status_id"),
    "all": (lambda b: b.jobs.list(), "pk_jobs"),
    "mine": (lambda b: b.jobs.list(OWNER), "ix_jobs_owner_id|pk_jobs"),
    "all running": (lambda b: b.jobs.list(status=[JobStatus.RUNNING]), "ix_jobs_status_id"),
    "my failed": (lambda b: b.jobs.list(OWNER, status=[JobStatus.FAILED]), "ix_jobs_owner_status_id"),
    "same run": (lambda b: b.jobs.list(OWNER, fingerprint="0" * 64), "ix_jobs_fingerprint_id"),
    "waiting": (lambda b: b.jobs.waiting(b.jobs.list(status=[JobStatus.QUEUED]).items), "ix_jobs_eligible"),
    "queues": (lambda b: b.jobs.queues(), "ix_jobs_queue_finished_at"),
    "expired": (lambda b: RetentionBook(b.store, b.settings, b.clock.clock()).expired(), "ix_jobs_kept"),
}


def plans(library: Library, call: Callable[[Library], object], only: str = "SELECT|UPDATE|WITH") -> str:
    """Make a call and return the plans of what it sent, of statements that begin so."""
    sent: list[tuple[str, Any]] = []

    def listen(_c: object, _cursor: object, statement: str, parameters: Any, *_more: object) -> None:
        sent.append((statement, parameters))

    event.listen(library.store.engine, "before_cursor_execute", listen)
    call(library)
    event.remove(library.store.engine, "before_cursor_execute", listen)
    explain = "EXPLAIN QUERY PLAN " if library.store.dialect == "sqlite" else "EXPLAIN "
    asked = [(text, values) for text, values in sent if re.match(only, text)]

    def read(conn: Connection) -> str:
        lines = []
        for text, values in asked:
            lines += [str(row[-1]) for row in conn.exec_driver_sql(explain + text, values)]
        return "\n".join(lines)

    return library.store.read(read)


def shortcoming(dialect: str, plan: str, index: str) -> str | None:
    """Tell what is wrong with a plan: it reads the table as a whole, or another index than it should."""
    if dialect == "sqlite":
        index = index.replace("pk_jobs", "sqlite_autoindex_jobs_1")
        if re.search(r"SCAN jobs(?! USING)", plan):
            return f"reads every job:\n{plan}"
    elif "Seq Scan on jobs" in plan:
        return f"reads every job:\n{plan}"
    return None if re.search(index, plan) else f"does not use {index}:\n{plan}"


def test_an_index_answers(crowded: Library) -> None:
    dialect = crowded.store.dialect
    found = {
        name: wrong
        for name, (call, index) in CALLS.items()
        if (wrong := shortcoming(dialect, plans(crowded, call), index)) is not None
    }
    assert not found, "\n\n".join(f"{name}: {wrong}" for name, wrong in found.items())
    plan = plans(
        crowded,
        lambda library: library.jobs.claim(QUEUE, "w"),
        only=r"UPDATE jobs(?s:.)*LIMIT",
    )
    assert "Sort Key: jobs" not in plan and "ORDER BY" not in plan, plan
    assert "ix_jobs_status_id" in plan, "the running jobs of owners are counted by their index"
