"""What may be deleted, and that nothing is before its journal is stored."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from api.domain import tables
from api.domain.errors import Conflict
from api.domain.records import Artifact, EpochRow, JobStatus
from api.domain.retention import GRACE_S, RetentionBook
from api.domain.settings import DAY
from tests.api.domain.conftest import OpenBooks
from tests.api.domain.library import Library

JOURNAL = Artifact("events.jsonl", "log", "1" * 64, 5, "application/jsonl")
LOG = Artifact("train.log", "log", "2" * 64, 5, "text/plain")
WEIGHTS = Artifact("best.pt", "weights", "3" * 64, 5, "application/octet-stream")


def retention(library: Library) -> RetentionBook:
    return RetentionBook(library.store, library.settings, library.clock.clock())


def finished(library: Library, *, lost: bool = False) -> str:
    """Leave a job that succeeded; at its second attempt where the first worker was lost."""
    job_id = library.running().job.id
    if lost:
        [seen] = library.jobs.held()
        library.jobs.expire(seen)
        library.clock.advance(1)
        library.claim()
    library.jobs.record_epochs(job_id, 1 + lost, [EpochRow(0, {"map50": 0.5})])
    library.jobs.finish(job_id, 1 + lost, artifacts=[JOURNAL, LOG, WEIGHTS])
    return job_id


def test_old_jobs_are_listed_oldest_first(library: Library) -> None:
    book = retention(library)
    first, waiting = finished(library), library.submit()
    library.jobs.pause(waiting.id)
    library.clock.advance(DAY)
    second = finished(library, lost=True)
    assert book.expired() == []
    library.clock.advance(89.5 * DAY)
    assert [job.id for job in book.expired()] == [first]
    library.clock.advance(DAY)
    found = book.expired()
    assert [(job.id, job.unarchived, job.status) for job in found] == [
        (first, (), JobStatus.SUCCEEDED),
        (second, (1,), JobStatus.SUCCEEDED),
    ]
    assert book.expired(limit=1) == found[:1]


def test_a_job_is_cleared_once_and_stays_in_the_book(library: Library) -> None:
    book, job_id = retention(library), finished(library)
    assert not book.clear(job_id)
    library.clock.advance(91 * DAY)
    assert book.deletable([job_id]) == []
    assert book.clear(job_id)
    assert not book.clear(job_id)
    assert (book.expired(), book.deletable([job_id])) == ([], [job_id])
    job = library.jobs.get(job_id)
    assert (job.status, job.cleared_at) == (JobStatus.SUCCEEDED, library.clock.now)
    assert len(library.jobs.epochs(job_id)) == 1
    assert library.jobs.artifact(job_id, "best.pt").sha256 == WEIGHTS.sha256


def test_a_journal_that_is_not_stored_keeps_the_job(library: Library) -> None:
    book, job_id = retention(library), finished(library, lost=True)
    library.clock.advance(91 * DAY)
    with pytest.raises(Conflict) as error:
        book.clear(job_id)
    assert error.value.code == "JOURNAL_NOT_ARCHIVED"
    assert book.deletable([job_id]) == []
    older = Artifact("events.jsonl", "log", "4" * 64, 9, "application/jsonl")
    assert book.archive(job_id, 1, [older])
    assert not book.archive(job_id, 1, [JOURNAL])
    assert library.jobs.logs(job_id, "events.jsonl")[1].sha256 == older.sha256
    assert [job.unarchived for job in book.expired()] == [()]
    assert book.clear(job_id)


def test_an_attempt_without_a_journal_is_no_obstacle(library: Library) -> None:
    book, job_id = retention(library), finished(library, lost=True)
    library.clock.advance(91 * DAY)
    assert book.clear(job_id, without_journal=[1])


def test_a_running_attempt_is_not_archived_by_others(library: Library) -> None:
    book, job_id = retention(library), library.running().job.id
    assert not book.archive(job_id, 1, [JOURNAL])
    assert not book.archive(job_id, 2, [JOURNAL])
    assert not book.archive("job_none", 1, [JOURNAL])
    assert library.jobs.artifacts(job_id) == []


def test_everything_may_be_kept(open_books: OpenBooks) -> None:
    with open_books(retention_days="never") as library:
        book, job_id = retention(library), finished(library)
        library.clock.advance(9000 * DAY)
        assert book.expired() == []
        assert not book.clear(job_id)


def test_folders_of_no_job(library: Library) -> None:
    book, kept, deleted = retention(library), finished(library), finished(library)
    library.jobs.delete(deleted)
    names = [kept, deleted, "lost+found", "..", "job_", f"{deleted}x", ""]
    assert book.deletable(names) == [deleted]
    assert book.deletable([]) == []


def blob_names(library: Library) -> set[str]:
    query = sa.select(tables.blobs.c.sha256)
    return set(library.store.read(lambda conn: list(conn.execute(query).scalars())))


def test_blobs_nobody_names(library: Library) -> None:
    book = retention(library)
    kept, deleted = library.running().job.id, library.running().job.id
    alone = Artifact("last.pt", "weights", "5" * 64, 7, "application/octet-stream")
    library.jobs.finish(kept, 1, artifacts=[WEIGHTS])
    library.jobs.finish(deleted, 1, artifacts=[WEIGHTS, alone])
    library.jobs.delete(deleted)
    assert book.unreferenced_blobs() == []
    library.clock.advance(GRACE_S + 1)
    assert [(blob.sha256, blob.size_bytes) for blob in book.unreferenced_blobs()] == [("5" * 64, 7)]
    assert book.drop_blobs(["5" * 64, "3" * 64, "9" * 64]) == ["5" * 64]
    assert blob_names(library) == {"a" * 64, "3" * 64}
    assert book.unreferenced_blobs() == []


def test_a_deleted_dataset_lets_its_blobs_go(library: Library) -> None:
    book, dataset = retention(library), library.dataset()
    library.clock.advance(GRACE_S + 1)
    assert book.unreferenced_blobs() == []
    library.datasets.delete(dataset.id)
    assert [blob.sha256 for blob in book.unreferenced_blobs()] == ["a" * 64]
