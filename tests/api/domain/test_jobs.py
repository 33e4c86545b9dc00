"""The job book as people use it: submission, owners, wishes, pages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from api.domain.errors import BadCursor, Conflict, NotFound
from api.domain.failures import Failure, FailureCode
from api.domain.jobs import JobBook
from api.domain.records import Artifact, Job, JobStatus, WaitingReason, Wish
from tests.api.domain.library import OTHER, OWNER, QUEUE, Library, pointer

CRASH = Failure(FailureCode.CRASHED, "signal 11")
BEST = {"epoch": 0, "map50": 0.5}
LOG = Artifact("train.log", "log", "f" * 64, 5, "text/plain")
WEIGHTS = Artifact("best.pt", "weights", "f" * 64, 5, "application/octet-stream")


def trail(library: Library, job_id: str) -> list[tuple[str | None, str, str]]:
    return [(step.from_status, step.to_status, step.reason) for step in library.jobs.transitions(job_id)]


def test_submit(library: Library) -> None:
    job = library.submit(tags=("a", "b"), priority=3)
    assert (job.status, job.attempt, job.revision, job.phase) == (JobStatus.QUEUED, 0, 0, None)
    assert (job.name, job.tags, job.priority, job.queue) == ("nano on cells", ("a", "b"), 3, QUEUE)
    assert (job.config, job.config_hash) == ({"epochs": 3}, "d" * 64)
    assert library.jobs.get(job.id, OWNER) == job
    assert trail(library, job.id) == [(None, "queued", "submitted")]


def test_an_idempotency_key_makes_one_job(library: Library) -> None:
    new = library.new_job()
    first = library.jobs.submit(new, key="k1", fingerprint="f1")
    again = library.jobs.submit(new, key="k1", fingerprint="f1")
    assert (first.created, again.created, again.job) == (True, False, first.job)
    with pytest.raises(Conflict) as error:
        library.jobs.submit(new, key="k1", fingerprint="f2")
    assert error.value.code == "IDEMPOTENCY_CONFLICT"
    assert library.jobs.submit(new, key="k2", fingerprint="f1").created
    assert library.jobs.submit(new).created
    assert len(library.jobs.list(OWNER).items) == 3
    other = library.new_job(owner=OTHER)
    assert library.jobs.submit(other, key="k1", fingerprint="f9").created


def test_without_a_fingerprint_the_submission_is_it(library: Library) -> None:
    assert library.jobs.submit(library.new_job(), key="k").created
    assert not library.jobs.submit(library.new_job(), key="k").created
    with pytest.raises(Conflict):
        library.jobs.submit(library.new_job(priority=1), key="k")


def test_a_refused_submission_does_not_use_up_its_key(library: Library) -> None:
    new = library.new_job()
    wrong = type(new)(**{**new.__dict__, "architecture_id": "arch_none"})
    with pytest.raises(NotFound) as error:
        library.jobs.submit(wrong, key="k", fingerprint="f")
    assert error.value.code == "ARCHITECTURE_NOT_FOUND"
    assert library.jobs.submit(new, key="k", fingerprint="g").created


def test_things_of_another_owner_cannot_be_used(library: Library) -> None:
    new = library.new_job()
    stolen = type(new)(**{**new.__dict__, "owner": OTHER})
    with pytest.raises(NotFound) as error:
        library.jobs.submit(stolen)
    assert error.value.code == "DATASET_NOT_FOUND"


def test_another_owner_sees_nothing(library: Library) -> None:
    job = library.submit()
    book = library.jobs
    calls: list[Callable[[str, str], object]] = [
        book.get, book.cancel, book.stop, book.pause, book.activate,
        book.transitions, book.attempts, book.epochs, book.artifacts,
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(NotFound):
            call(job.id, OTHER)
        with pytest.raises(NotFound):
            call("job_none", OWNER)
    assert book.list(OTHER).items == ()
    assert book.get(job.id) == job
    assert (book.count_by_status(OTHER), book.count_by_status()) == ({}, {"queued": 1})


def test_pages_and_filters(library: Library) -> None:
    made = [library.submit().id for _ in range(5)]
    library.jobs.cancel(made[2])
    seen: list[str] = []
    cursor = None
    while True:
        page = library.jobs.list(OWNER, limit=2, cursor=cursor)
        seen += [job.id for job in page.items]
        cursor = page.next
        if cursor is None:
            break
    assert seen == sorted(made, reverse=True)
    cancelled = library.jobs.list(OWNER, status=[JobStatus.CANCELLED])
    assert [job.id for job in cancelled.items] == [made[2]]
    assert cancelled.next is None
    with pytest.raises(BadCursor):
        library.jobs.list(OWNER, cursor="ds_" + made[0][4:])
    assert library.jobs.revisions([made[0], made[2], "job_none"]) == {made[0]: 0, made[2]: 1}


WISHES: list[tuple[Callable[[JobBook, str], Job], Wish]] = [
    (JobBook.cancel, Wish.CANCEL),
    (JobBook.stop, Wish.STOP),
    (JobBook.pause, Wish.PAUSE),
]


@pytest.mark.parametrize("first", WISHES)
@pytest.mark.parametrize("second", WISHES)
def test_the_stronger_wish_wins(
    library: Library,
    first: tuple[Callable[[JobBook, str], Job], Wish],
    second: tuple[Callable[[JobBook, str], Job], Wish],
) -> None:
    job_id = library.running().job.id
    assert first[0](library.jobs, job_id).wish is first[1]
    order = list(Wish)
    expected = min(first[1], second[1], key=order.index)
    assert second[0](library.jobs, job_id).wish is expected
    assert library.jobs.heartbeat(job_id, 1) is expected


@pytest.mark.parametrize(
    ("ask", "has_best", "status"),
    [
        (JobBook.cancel, True, JobStatus.CANCELLED),
        (JobBook.stop, False, JobStatus.CANCELLED),
        (JobBook.pause, True, JobStatus.PAUSED),
    ],
)
@pytest.mark.parametrize("from_paused", [False, True])
def test_wishes_on_a_job_that_does_not_run(
    library: Library, ask: Callable[[JobBook, str], Job], has_best: bool, status: JobStatus, from_paused: bool
) -> None:
    job_id = library.running().job.id
    if has_best:
        library.jobs.move_pointer(job_id, 1, pointer(1, 1, best=BEST))
    library.jobs.release(job_id, 1, drained=True)
    if from_paused:
        library.jobs.pause(job_id)
    job = ask(library.jobs, job_id)
    assert (job.status, job.wish) == (status, None)
    assert (job.finished_at is not None) == status.is_final


def waiting_job(library: Library, *, paused: bool, weights_of: int = 0) -> str:
    """Return a job with a best in its checkpoint that nobody runs; its pointer is of attempt 2."""
    job_id = library.running().job.id
    if weights_of == 1:
        library.jobs.add_artifacts(job_id, 1, [WEIGHTS])
    library.jobs.release(job_id, 1, drained=True)
    assert library.claim().attempt == 2
    library.jobs.move_pointer(job_id, 2, pointer(2, 1, best=BEST))
    # Those of every N-th epoch are not those of the best.
    library.jobs.add_artifacts(job_id, 2, [replace(WEIGHTS, name="epoch0.pt"), LOG])
    if weights_of == 2:
        library.jobs.add_artifacts(job_id, 2, [WEIGHTS])
    library.jobs.release(job_id, 2, drained=True)
    if paused:
        library.jobs.pause(job_id)
    return job_id


@pytest.mark.parametrize("paused", [False, True])
def test_a_stop_without_a_trainer_ends_a_job_whose_weights_are_stored(library: Library, paused: bool) -> None:
    job_id = waiting_job(library, paused=paused, weights_of=2)
    job = library.jobs.stop(job_id)
    assert (job.status, job.wish, job.best) == (JobStatus.SUCCEEDED, None, BEST)


@pytest.mark.parametrize("weights_of", [0, 1])
@pytest.mark.parametrize("paused", [False, True])
def test_a_stop_without_a_trainer_waits_for_one(library: Library, paused: bool, weights_of: int) -> None:
    job_id = waiting_job(library, paused=paused, weights_of=weights_of)
    steps = len(trail(library, job_id))
    job = library.jobs.stop(job_id)
    assert (job.status, job.wish) == (JobStatus.QUEUED, Wish.STOP)
    assert trail(library, job_id)[steps:] == ([("paused", "queued", "stop")] if paused else [])
    assert library.jobs.pause(job_id) == job == library.jobs.stop(job_id)
    ((_, waiting),) = library.jobs.waiting([job])
    assert waiting is not None and waiting.reason is WaitingReason.NO_WORKER
    claim = library.claim()
    assert (claim.job.id, claim.attempt, claim.job.wish) == (job_id, 3, Wish.STOP)
    assert library.jobs.heartbeat(job_id, 3) is Wish.STOP
    assert library.jobs.finish(job_id, 3, artifacts=[WEIGHTS]).wish is None


def test_a_stop_that_stands_can_be_taken_back_or_outranked(library: Library) -> None:
    job_id = waiting_job(library, paused=True)
    library.jobs.stop(job_id)
    assert library.jobs.activate(job_id).wish is None
    assert library.claim().job.wish is None
    library.jobs.release(job_id, 3, drained=True)
    assert library.jobs.stop(job_id).wish is Wish.STOP
    job = library.jobs.cancel(job_id)
    assert (job.status, job.wish) == (JobStatus.CANCELLED, None)


def test_a_stop_ends_the_wait_before_a_retry_and_counts_its_failures(library: Library) -> None:
    job_id = waiting_job(library, paused=False)
    library.claim()
    assert library.jobs.fail(job_id, 3, CRASH).not_before is not None
    assert library.jobs.stop(job_id).not_before is None
    retries = library.settings.job_retries
    for failures in range(2, retries + 2):
        claim = library.claim()
        job = library.jobs.fail(job_id, claim.attempt, CRASH)
        assert job.failures == failures
        if failures <= retries:
            assert (job.status, job.wish, job.error and job.error["code"]) == ("queued", "stop", "CRASHED")
            library.clock.advance(1000)
    assert (job.status, job.wish, job.error and job.error["code"]) == ("failed", None, "CRASHED")
    assert job.pointer is not None


def test_what_is_stopped_may_run_over_its_time(library: Library) -> None:
    job_id = library.submit(max_runtime_s=10).id
    attempt = library.claim().attempt
    library.jobs.move_pointer(job_id, attempt, pointer(attempt, 1, best=BEST))
    library.jobs.stop(job_id)
    library.clock.advance(20)
    assert library.jobs.fail(job_id, attempt, CRASH).status is JobStatus.QUEUED


def test_wishes_on_a_job_that_ended(library: Library) -> None:
    job = library.submit()
    library.jobs.cancel(job.id)
    assert library.jobs.cancel(job.id).status is JobStatus.CANCELLED
    for call in (library.jobs.pause, library.jobs.activate):
        with pytest.raises(Conflict) as error:
            call(job.id)
        assert (error.value.code, error.value.message) == (
            "JOB_FINAL",
            "the job has ended: it was cancelled",
        )
    assert trail(library, job.id)[-1] == ("queued", "cancelled", "cancel")
    assert len(trail(library, job.id)) == 2


def test_a_finish_beats_a_wish(library: Library) -> None:
    job_id = library.running().job.id
    library.jobs.cancel(job_id)
    assert library.jobs.finish(job_id, 1, best=BEST).status is JobStatus.SUCCEEDED
    with pytest.raises(Conflict, match="the job has ended: it succeeded"):
        library.jobs.cancel(job_id)


def test_activate(library: Library) -> None:
    job_id = library.running().job.id
    library.jobs.pause(job_id)
    assert library.jobs.activate(job_id).wish is None
    library.jobs.stop(job_id)
    assert library.jobs.activate(job_id).wish is Wish.STOP
    library.jobs.cancel(job_id)
    library.jobs.release(job_id, 1)

    paused = library.submit()
    library.jobs.pause(paused.id)
    assert library.jobs.claim(QUEUE, "w") is None
    assert library.jobs.activate(paused.id).status is JobStatus.QUEUED
    claim = library.claim()
    assert claim.job.id == paused.id

    library.jobs.fail(paused.id, 1, CRASH)
    assert library.jobs.claim(QUEUE, "w") is None
    assert library.jobs.activate(paused.id).not_before is None
    assert library.claim().attempt == 2


def test_a_pause_taken_back_queues_the_job_at_no_cost(library: Library) -> None:
    job_id = library.running().job.id
    library.jobs.pause(job_id)
    library.jobs.activate(job_id)
    job = library.jobs.release(job_id, 1)
    assert (job.status, job.failures, job.preemptions) == (JobStatus.QUEUED, 0, 0)
