"""The job book while many ask at once: each job, limit and key counts once."""

from __future__ import annotations

import threading
from collections.abc import Callable

import sqlalchemy as sa

from api.domain import tables
from api.domain.ids import new_id
from api.domain.jobs import JobBook
from tests.api.domain.conftest import OpenBooks
from tests.api.domain.library import OTHER, OWNER, QUEUE, Library


def test_a_limit_holds_while_many_claim(open_books: OpenBooks) -> None:
    with open_books(max_running_per_owner=2) as library:
        submit_many(library, 24)
        library.submit(owner=OTHER)
        barrier = threading.Barrier(8)
        claimed: list[str] = []

        def work(name: str) -> None:
            barrier.wait()
            while (claim := library.jobs.claim(QUEUE, name)) is not None:
                claimed.append(claim.job.owner)

        run_threads([lambda n=n: work(f"w{n}") for n in range(8)])
        assert sorted(claimed) == [OWNER, OWNER, OTHER]


def run_threads(calls: list[Callable[[], object]]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def claim_all(book: JobBook, worker: str) -> list[str]:
    mine = []
    while (claim := book.claim(QUEUE, worker)) is not None:
        mine.append(f"{claim.job.id}/{claim.attempt}")
    return mine


def submit_many(library: Library, count: int) -> set[str]:
    """Queue one job by the book and copies of its row, in one transaction; return the claims to come."""
    first = library.submit().id
    ids = [first, *(new_id("job") for _ in range(count - 1))]

    def copy(conn: sa.Connection) -> None:
        row = conn.execute(sa.select(tables.jobs).where(tables.jobs.c.id == first)).mappings().one()
        conn.execute(sa.insert(tables.jobs), [{**row, "id": job_id} for job_id in ids[1:]])

    library.store.write(copy)
    return {f"{job_id}/1" for job_id in ids}


def test_four_threads_claim_each_job_once(library: Library) -> None:
    made = submit_many(library, 100)
    claimed: list[str] = []
    run_threads([lambda n=n: claimed.extend(claim_all(library.jobs, f"w{n}")) for n in range(4)])
    assert sorted(claimed) == sorted(made)


def test_one_key_from_many_threads_makes_one_job(library: Library) -> None:
    new = library.new_job()
    answers = []
    run_threads([lambda: answers.append(library.jobs.submit(new, key="k"))] * 6)
    assert len({answer.job.id for answer in answers}) == 1
    assert [answer.created for answer in answers].count(True) == 1
