"""The book of weights: entered once, decided by a task, kept while anything refers to them."""

from __future__ import annotations

import pytest

from api.domain.blobs import Blob
from api.domain.contents import ContentBook
from api.domain.errors import Conflict, Fenced, NotFound
from api.domain.failures import Failure, FailureCode
from api.domain.records import Task, TaskStatus, Wish
from api.domain.retention import GRACE_S, RetentionBook
from api.domain.uploads import UploadBook
from api.domain.weights import WeightsBook
from api.domain.weights_records import WeighingResult, Weights, WeightsStatus
from tests.api.domain.library import OTHER, OWNER, Library

SENT, STORED, REPORT = "5" * 64, "6" * 64, "7" * 64
READY = WeighingResult(
    WeightsStatus.READY,
    REPORT,
    stored_sha256=STORED,
    stored_bytes=4,
    num_classes=2,
    classes=("x", "y"),
    num_tensors=3,
    num_parameters=2**40,
    provenance={"file_name": "best.pt"},
)


@pytest.fixture
def book(library: Library) -> WeightsBook:
    return WeightsBook(library.store, library.clock.clock())


def enter(book: WeightsBook, name: str = "mine", sha256: str = SENT, owner: str = OWNER) -> Weights:
    return book.create(owner, name, Blob(sha256, 10), file_name="best.pt").weights


def claimed(library: Library) -> Task:
    task = library.tasks.claim("ingest", "w")
    assert task is not None and task.kind == "weights"
    return task


def decide(library: Library, result: WeighingResult = READY) -> None:
    task = claimed(library)
    library.tasks.finish_weights(task.id, task.attempt, result)


def test_weights_are_entered_once_and_decided_by_their_task(library: Library, book: WeightsBook) -> None:
    made = enter(book)
    assert (made.status, made.classes, made.num_tensors) == (WeightsStatus.IMPORTING, (), 0)
    assert enter(book) == made
    with pytest.raises(Conflict, match="other weights"):
        enter(book, sha256="8" * 64)
    decide(library)
    found = book.find("mine", OWNER)
    assert found == book.find(made.id, OWNER) == book.get(made.id) == book.list(OWNER).items[0]
    assert (found.status, found.stored_sha256, found.classes) == (WeightsStatus.READY, STORED, ("x", "y"))
    assert (found.num_parameters, found.provenance) == (2**40, {"file_name": "best.pt"})
    assert found.revision > made.revision
    for wanted in ("mine", made.id):
        with pytest.raises(NotFound):
            book.find(wanted, OTHER)
    assert book.list(OTHER).items == ()


def test_a_late_verdict_is_fenced(library: Library, book: WeightsBook) -> None:
    made = enter(book)
    task = claimed(library)
    library.tasks.release(task.id, task.attempt)
    claimed(library)
    with pytest.raises(Fenced):
        library.tasks.finish_weights(task.id, task.attempt, READY)
    assert book.get(made.id).status is WeightsStatus.IMPORTING


def test_three_failures_are_the_services_and_another_try_is_one_upload_away(
    library: Library, book: WeightsBook
) -> None:
    made = enter(book)
    for _ in range(library.settings.task_retries + 1):
        library.clock.advance(60)
        task = claimed(library)
        library.tasks.fail(task.id, task.attempt, Failure(FailureCode.CRASHED, "no"))
    failed = book.get(made.id)
    assert failed.status is WeightsStatus.FAILED
    assert failed.error is not None and failed.error["code"] == "SERVICE_ERROR"
    assert enter(book).status is WeightsStatus.IMPORTING
    decide(library)
    assert (book.get(made.id).status, book.get(made.id).error) == (WeightsStatus.READY, None)


def test_a_job_keeps_the_digest_and_its_weights(library: Library, book: WeightsBook) -> None:
    made = enter(book)
    library.dataset()
    with pytest.raises(Conflict, match="importing"):
        library.submit(weights_id=made.id, ready=False)
    decide(library)
    job = library.submit(weights_id=made.id, ready=False)
    assert (job.weights_id, job.weights_sha256) == (made.id, STORED)
    with pytest.raises(Conflict, match=job.id):
        book.delete(made.id, OWNER)
    library.jobs.cancel(job.id)
    with pytest.raises(NotFound):
        book.delete(made.id, OTHER)
    book.delete(made.id, OWNER)
    with pytest.raises(NotFound):
        library.submit(weights_id=made.id, ready=False)
    assert library.jobs.get(job.id).weights_sha256 == STORED
    assert enter(book).id != made.id


def test_deleting_cancels_the_import(library: Library, book: WeightsBook) -> None:
    waiting, running = enter(book, "a"), enter(book, "b", "9" * 64)
    book.delete(waiting.id, OWNER)
    (task,) = library.tasks.for_subject(waiting.id)
    assert task.status is TaskStatus.CANCELLED
    task = claimed(library)
    book.delete(running.id, OWNER)
    assert library.tasks.heartbeat(task.id, task.attempt) is Wish.CANCEL


def test_what_living_weights_name_is_kept_and_counted_once(library: Library, book: WeightsBook) -> None:
    made = enter(book)
    decide(library)
    contents, uploads = ContentBook(library.store), UploadBook(library.store)
    retention = RetentionBook(library.store, library.settings, library.clock.clock())
    digests = [SENT, STORED, REPORT]
    library.clock.advance(2 * GRACE_S)
    assert contents.unnamed(digests) == [] and retention.unreferenced_blobs() == []
    assert uploads.own_content(OWNER, SENT) == 10 and uploads.own_content(OTHER, SENT) is None
    uploads.check_quota(OWNER, 10, 10, sha256=SENT)
    with pytest.raises(Conflict, match="10 of 10 bytes"):
        uploads.check_quota(OWNER, 1, 10)
    book.delete(made.id, OWNER)
    assert [blob.sha256 for blob in retention.unreferenced_blobs()] == [SENT]
    assert contents.unnamed(digests) == [STORED, REPORT], "the row of what was sent goes first"
    uploads.check_quota(OWNER, 10, 10)
