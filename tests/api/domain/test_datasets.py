"""Datasets and their ingest tasks: claimed and fenced as jobs are, with verdicts that reach jobs."""

from __future__ import annotations

import pytest

from api.domain.blobs import Blob
from api.domain.errors import BadCursor, Conflict, Fenced, NotFound
from api.domain.failures import Failure, FailureCode
from api.domain.leasing import Held
from api.domain.records import DatasetStatus, IngestResult, JobStatus, TaskStatus, Wish
from tests.api.domain.library import OTHER, OWNER, QUEUE, Library

CRASH = Failure(FailureCode.CRASHED, "signal 9")
READY = IngestResult(
    DatasetStatus.READY,
    "b" * 64,
    "c" * 64,
    statistics={"boxes": 7},
    classes=("x", "y"),
    splits={"train": 3, "val": 1},
    num_boxes=7,
    num_warnings=2,
)


def test_an_archive_is_looked_into(library: Library) -> None:
    dataset = library.dataset()
    assert dataset.status is DatasetStatus.INGESTING
    task = library.tasks.claim("ingest", "w")
    assert task is not None
    assert (task.subject_id, task.kind, task.attempt) == (dataset.id, "ingest", 1)
    assert task.payload == {"sha256": "a" * 64, "file_name": "cells.zip"}
    assert library.tasks.claim("ingest", "w") is None
    assert library.tasks.heartbeat(task.id, 1) is None
    assert library.tasks.finish_ingest(task.id, 1, READY).status is TaskStatus.SUCCEEDED
    ready = library.datasets.get(dataset.id, OWNER)
    assert (ready.status, ready.manifest_hash, ready.num_classes) == (DatasetStatus.READY, "c" * 64, 2)
    assert (ready.splits, ready.num_boxes, ready.statistics) == ({"train": 3, "val": 1}, 7, {"boxes": 7})


def test_same_name_same_bytes_is_the_same_dataset(library: Library) -> None:
    dataset = library.dataset()
    assert library.dataset() == dataset
    assert len(library.tasks.for_subject(dataset.id)) == 1
    with pytest.raises(Conflict) as error:
        library.dataset(sha="f")
    assert error.value.code == "NAME_TAKEN"
    assert library.dataset(owner=OTHER, sha="f").id != dataset.id


def test_another_owner_sees_nothing(library: Library) -> None:
    dataset = library.dataset()
    for call in (library.datasets.get, library.datasets.delete, library.datasets.retry_ingest):
        with pytest.raises(NotFound):
            call(dataset.id, OTHER)
    assert library.datasets.list(OTHER).items == ()
    assert library.datasets.list().items == (dataset,)


def test_a_job_waits_for_its_dataset(library: Library) -> None:
    job = library.submit(ready=False)
    assert job.phase == "waiting_for_dataset"
    assert library.jobs.claim(QUEUE, "w") is None
    assert library.jobs.count_due() == {}
    library.ingest()
    assert library.jobs.get(job.id).phase is None
    assert library.jobs.count_due() == {QUEUE: 1}
    assert library.claim().job.id == job.id


def test_a_job_on_a_dataset_that_turns_out_invalid_fails(library: Library) -> None:
    queued, paused = library.submit(ready=False), library.submit(ready=False)
    library.jobs.pause(paused.id)
    library.ingest(DatasetStatus.INVALID)
    for job_id in (queued.id, paused.id):
        job = library.jobs.get(job_id)
        assert job.status is JobStatus.FAILED
        assert job.error is not None and job.error["code"] == "DATASET_INVALID"
        assert job.error["evidence"]["problems"].endswith("/problems")
        assert library.jobs.transitions(job_id)[-1].to_status is JobStatus.FAILED
    with pytest.raises(Conflict) as error:
        library.submit(ready=False)
    assert error.value.code == "DATASET_INVALID"


def test_three_failures_without_a_verdict_are_a_service_error(library: Library) -> None:
    job = library.submit(ready=False)
    for attempt in (1, 2, 3):
        assert library.tasks.claim("ingest", "w") is not None
        task = library.tasks.for_subject(job.dataset_id)[0]
        after = library.tasks.fail(task.id, attempt, CRASH)
        assert after.failures == attempt
        assert library.tasks.claim("ingest", "w") is None
        library.clock.advance(10)
    assert after.status is TaskStatus.FAILED
    dataset = library.datasets.get(job.dataset_id)
    assert dataset.error is not None
    assert (dataset.status, dataset.error["code"]) == (DatasetStatus.INVALID, "SERVICE_ERROR")
    error = library.jobs.get(job.id).error
    assert error is not None and error["code"] == "SERVICE_ERROR"

    assert library.datasets.retry_ingest(dataset.id, OWNER).status is DatasetStatus.INGESTING
    library.ingest()
    assert library.datasets.get(dataset.id).status is DatasetStatus.READY
    with pytest.raises(Conflict):
        library.datasets.retry_ingest(dataset.id, OWNER)


def test_the_same_archive_is_looked_into_again_where_the_service_failed(library: Library) -> None:
    dataset = library.dataset()
    for _ in range(3):
        task = library.tasks.claim("ingest", "w")
        assert task is not None
        library.tasks.fail(task.id, task.attempt, Failure(FailureCode.SERVICE_ERROR, "no answer"))
        library.clock.advance(1000)
    assert library.datasets.get(dataset.id).status is DatasetStatus.INVALID
    archive = Blob(dataset.sha256, dataset.size_bytes)
    again = library.datasets.create(OWNER, dataset.name, archive, file_name="a.zip")
    assert not again.created and again.dataset.status is DatasetStatus.INGESTING
    library.ingest()
    assert library.datasets.get(dataset.id).status is DatasetStatus.READY


def test_a_stale_ingest_cannot_publish(library: Library) -> None:
    dataset = library.dataset()
    first = library.tasks.claim("ingest", "w1")
    assert first is not None
    [seen] = library.tasks.held()
    assert library.tasks.expire(seen) is not None
    library.clock.advance(10)
    second = library.tasks.claim("ingest", "w2")
    assert second is not None and second.attempt == 2
    stale = [
        lambda: library.tasks.heartbeat(first.id, 1),
        lambda: library.tasks.finish_ingest(first.id, 1, READY),
        lambda: library.tasks.fail(first.id, 1, CRASH),
        lambda: library.tasks.release(first.id, 1),
        lambda: library.tasks.note_blob(first.id, 1, "9" * 64, 1),
    ]
    for call in stale:
        with pytest.raises(Fenced):
            call()
    assert library.datasets.get(dataset.id).status is DatasetStatus.INGESTING
    assert library.tasks.get(first.id) == second


def test_a_renewed_task_is_not_expired(library: Library) -> None:
    library.dataset()
    task = library.tasks.claim("ingest", "w1")
    assert task is not None
    [seen] = library.tasks.held()
    library.tasks.heartbeat(task.id, 1)
    assert library.tasks.expire(seen) is None
    assert library.tasks.expire(Held(task.id, 1, seen.lease_seq + 1)) is not None


def test_released_task_costs_nothing(library: Library) -> None:
    library.dataset()
    task = library.tasks.claim("ingest", "w1")
    assert task is not None
    after = library.tasks.release(task.id, 1)
    assert (after.status, after.failures, after.preemptions) == (TaskStatus.QUEUED, 0, 1)
    assert library.tasks.count_due() == {"ingest": 1}


def test_delete_frees_the_name_and_cancels_the_ingest(library: Library) -> None:
    waiting = library.dataset("waiting")
    library.datasets.delete(waiting.id, OWNER)
    assert library.tasks.for_subject(waiting.id)[0].status is TaskStatus.CANCELLED
    with pytest.raises(NotFound):
        library.datasets.get(waiting.id)

    running = library.dataset("waiting", sha="f")
    assert running.id != waiting.id
    task = library.tasks.claim("ingest", "w")
    assert task is not None
    library.datasets.delete(running.id)
    assert library.tasks.heartbeat(task.id, 1) is Wish.CANCEL
    assert library.tasks.release(task.id, 1).status is TaskStatus.CANCELLED


def test_a_dataset_in_use_stays(library: Library) -> None:
    job = library.submit()
    with pytest.raises(Conflict) as error:
        library.datasets.delete(job.dataset_id, OWNER)
    assert error.value.code == "DATASET_IN_USE"
    assert error.value.message == f"1 unfinished job needs this dataset: {job.id}"
    library.jobs.cancel(job.id)
    library.datasets.delete(job.dataset_id, OWNER)
    assert library.jobs.get(job.id).dataset_id == job.dataset_id


def test_the_jobs_that_need_a_dataset_are_named(library: Library) -> None:
    jobs = [library.submit() for _ in range(12)]
    library.jobs.pause(jobs[0].id)
    with pytest.raises(Conflict) as error:
        library.datasets.delete(jobs[0].dataset_id, OWNER)
    names = ", ".join(job.id for job in jobs[:10])
    assert error.value.message == f"12 unfinished jobs need this dataset: {names} and 2 more"


def test_pages(library: Library) -> None:
    made = [library.dataset(f"d{n}").id for n in range(5)]
    seen, cursor = [], None
    while True:
        page = library.datasets.list(OWNER, limit=2, cursor=cursor)
        seen += [dataset.id for dataset in page.items]
        cursor = page.next
        if cursor is None:
            break
    assert sorted(seen, reverse=True) == seen
    assert set(seen) == set(made) and len(seen) == 5
    for wrong in ("", "x", made[0].replace("ds_", "job_")):
        with pytest.raises(BadCursor):
            library.datasets.list(OWNER, cursor=wrong)


def test_architectures(library: Library) -> None:
    made = library.architecture()
    assert library.architecture() == made
    assert library.architectures.get(made.id, OWNER) == made
    assert library.architectures.list(OWNER).items == (made,)
    assert library.architectures.list(OTHER).items == ()
    with pytest.raises(NotFound):
        library.architectures.get(made.id, OTHER)
