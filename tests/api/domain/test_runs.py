"""The job book as a worker uses it: claims, fences, pointers, ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from api.domain.errors import Fenced, NotFound
from api.domain.failures import Failure, FailureCode
from api.domain.jobs import JobBook
from api.domain.leasing import Held
from api.domain.records import Artifact, EpochRow, JobStatus
from api.domain.rules import RetryRules
from api.domain.settings import Settings, allow_simulation
from tests.api.domain.conftest import OpenBooks
from tests.api.domain.library import OTHER, OWNER, QUEUE, Library, pointer

CRASH = Failure(FailureCode.CRASHED, "signal 11", evidence={"signal": 11})
VERDICT = Failure(FailureCode.CONFIG_INVALID, "batch 0", place="/batch", value="0")
BEST = {"epoch": 1, "map50": 0.5, "fitness": 0.4}
WEIGHTS = Artifact("best.pt", "weights", "f" * 64, 5, "application/octet-stream")


def wait_s(job_id: str, failures: int, nominal_s: float) -> float:
    """Return the wait of this very job before an attempt."""
    wait_s = RetryRules(9, 0.1, 600.0).pause_s(failures, key=job_id)
    assert 0.8 * nominal_s <= wait_s <= 1.2 * nominal_s
    return wait_s


def row(epoch: int, *, best: bool = False, map50: float = 0.1) -> EpochRow:
    return EpochRow(epoch, {"map50": map50, "best": best, "fitness": map50}, event_id=f"1-{epoch + 1}")


def live(library: Library, job_id: str) -> list[tuple[int, int]]:
    return [(found.epoch, found.attempt) for found in library.jobs.epochs(job_id)]


def test_claim(library: Library) -> None:
    job = library.submit()
    claim = library.jobs.claim(QUEUE, "w1", host="h", gpus=("A100",))
    assert claim is not None
    assert (claim.job.id, claim.attempt, claim.job.status) == (job.id, 1, JobStatus.RUNNING)
    assert (claim.job.worker, claim.job.phase, claim.job.lease_seq) == ("w1", "preparing", 1)
    assert claim.dataset.manifest_hash == "c" * 64
    assert claim.architecture.text == "nc: 2"
    assert library.jobs.claim(QUEUE, "w2") is None
    [attempt] = library.jobs.attempts(job.id)
    assert (attempt.attempt, attempt.worker, attempt.host, attempt.gpus) == (1, "w1", "h", ("A100",))
    assert library.jobs.transitions(job.id)[-1].actor == "worker:w1"


def test_order_of_claims(library: Library) -> None:
    low, old, new = library.submit(priority=-1), library.submit(), library.submit()
    high = library.submit(priority=5)
    other_queue = library.submit(queue="train.g1")
    assert [library.claim().job.id for _ in range(4)] == [high.id, old.id, new.id, low.id]
    assert library.jobs.claim(QUEUE, "w") is None
    assert library.jobs.count_due() == {"train.g1": 1}
    claim = library.jobs.claim("train.g1", "w")
    assert claim is not None and claim.job.id == other_queue.id


def test_an_owner_has_a_limit(open_books: OpenBooks) -> None:
    with open_books(max_running_per_owner=1) as library:
        first, second = library.submit(), library.submit()
        bob = library.submit(owner=OTHER)
        assert library.claim().job.id == first.id
        assert library.claim().job.id == bob.id
        assert library.jobs.claim(QUEUE, "w") is None
        assert library.jobs.count_due() == {}
        library.jobs.finish(first.id, 1)
        assert library.claim().job.id == second.id


WRITES: dict[str, Callable[[JobBook, str, int], object]] = {
    "heartbeat": lambda book, job, n: book.heartbeat(job, n),
    "progress": lambda book, job, n: book.record_progress(job, n, {"epoch": 9}, phase="training"),
    "epochs": lambda book, job, n: book.record_epochs(job, n, [row(5)]),
    "pointer": lambda book, job, n: book.move_pointer(job, n, pointer(n, 6), [row(5)]),
    "drop": lambda book, job, n: book.drop_pointer(job, n),
    "artifacts": lambda book, job, n: book.add_artifacts(job, n, [WEIGHTS]),
    "finish": lambda book, job, n: book.finish(job, n, best=BEST, epochs=[row(5)], artifacts=[WEIGHTS]),
    "fail": lambda book, job, n: book.fail(job, n, CRASH, artifacts=[WEIGHTS], last_event_id="1-9"),
    "release": lambda book, job, n: book.release(job, n, drained=True, last_event_id="1-9"),
}


def everything(library: Library, job_id: str) -> tuple[object, ...]:
    book = library.jobs
    return (
        book.get(job_id),
        book.transitions(job_id),
        book.attempts(job_id),
        book.epochs(job_id, with_superseded=True),
        book.artifacts(job_id),
    )


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_stale_attempt_changes_nothing(
    library: Library, write: Callable[[JobBook, str, int], object]
) -> None:
    job_id = library.running().job.id
    library.jobs.move_pointer(job_id, 1, pointer(1, 1), [row(0)])
    [seen] = library.jobs.held()
    assert library.jobs.expire(seen) is not None
    situations: list[Callable[[], object]] = [
        lambda: None,
        lambda: library.clock.advance(10),
        lambda: library.claim("w2"),
        lambda: library.jobs.finish(job_id, 2),
    ]
    for enter in situations:
        enter()
        before = everything(library, job_id)
        for attempt in (0, 1, 3):
            with pytest.raises(Fenced):
                write(library.jobs, job_id, attempt)
        assert everything(library, job_id) == before
    with pytest.raises(Fenced):
        write(library.jobs, "job_none", 1)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_the_owner_of_the_attempt_may(library: Library, write: Callable[[JobBook, str, int], object]) -> None:
    job_id = library.running().job.id
    before = library.jobs.get(job_id)
    write(library.jobs, job_id, 1)
    after = library.jobs.get(job_id)
    if write is WRITES["heartbeat"]:
        assert (after.revision, after.lease_seq) == (before.revision, before.lease_seq + 1)
    else:
        assert after.revision > before.revision


def test_progress_renews_and_shows(library: Library) -> None:
    job_id = library.running().job.id
    seq = library.jobs.get(job_id).lease_seq
    library.jobs.record_progress(job_id, 1, {"epoch": 1}, phase="training", last_event_id="1-4")
    library.jobs.record_progress(job_id, 1, phase="validating")
    job = library.jobs.get(job_id)
    assert (job.progress, job.phase, job.last_event_id) == ({"epoch": 1}, "validating", "1-4")
    assert job.lease_seq == seq + 2


def test_epochs_are_written_once_however_often_they_are_sent(library: Library) -> None:
    job_id = library.running().job.id
    library.jobs.record_epochs(job_id, 1, [row(0, best=True, map50=0.2), row(1, best=True, map50=0.3)])
    library.jobs.record_epochs(job_id, 1, [row(1, best=True, map50=0.3), row(2, map50=0.1)])
    assert live(library, job_id) == [(0, 1), (1, 1), (2, 1)]
    job = library.jobs.get(job_id)
    assert job.best == {"epoch": 1, "map50": 0.3, "fitness": 0.3}
    assert job.metrics is not None and (job.metrics["epoch"], job.metrics["map50"]) == (2, 0.1)


def test_an_attempt_goes_on_from_the_pointer(library: Library) -> None:
    job_id = library.running().job.id
    library.jobs.move_pointer(job_id, 1, pointer(1, 2, best=BEST), [row(0), row(1, best=True)])
    library.jobs.record_epochs(job_id, 1, [row(2, best=True, map50=0.9), row(3)])
    after = library.jobs.fail(job_id, 1, CRASH, last_event_id="1-44", exit_code=-11)
    assert (after.status, after.failures) == (JobStatus.QUEUED, 1)
    assert after.not_before == pytest.approx(library.clock.now + wait_s(job_id, 1, 0.1))
    assert after.error is not None and after.error["code"] == "CRASHED"
    library.clock.advance(1)

    claim = library.claim("w2")
    assert claim.attempt == 2
    assert claim.job.pointer == pointer(1, 2, best=BEST)
    assert claim.job.best == BEST
    assert claim.job.error is None
    assert claim.job.metrics is not None and claim.job.metrics["epoch"] == 1
    assert live(library, job_id) == [(0, 1), (1, 1)]
    superseded = [
        found.epoch for found in library.jobs.epochs(job_id, with_superseded=True) if found.superseded
    ]
    assert superseded == [2, 3]

    library.jobs.record_epochs(job_id, 2, [row(0), row(1), row(2)])
    assert live(library, job_id) == [(0, 1), (1, 1), (2, 2)]
    first, second = library.jobs.attempts(job_id)
    assert (first.outcome, first.code, first.exit_code, first.last_event_id) == (
        "failed",
        "CRASHED",
        -11,
        "1-44",
    )
    assert second.resumed_from is not None and second.resumed_from["after"] == "1-29"


def test_rows_that_sql_lacks_are_filled_from_a_checkpoint(library: Library) -> None:
    job_id = library.running().job.id
    library.jobs.move_pointer(job_id, 1, pointer(1, 3), [row(0), row(2)])
    library.jobs.release(job_id, 1, drained=True)
    library.claim("w2")
    library.jobs.record_epochs(job_id, 2, [row(0), row(1), row(2)])
    assert live(library, job_id) == [(0, 1), (1, 2), (2, 1)]


def test_without_a_pointer_an_attempt_begins_anew(library: Library) -> None:
    job_id = library.running().job.id
    library.jobs.record_epochs(job_id, 1, [row(0, best=True)])
    library.jobs.release(job_id, 1, drained=True)
    claim = library.claim("w2")
    assert (claim.job.best, claim.job.metrics, claim.job.pointer) == (None, None, None)
    assert live(library, job_id) == []


def test_a_pointer_that_cannot_be_read_is_dropped(library: Library) -> None:
    job_id = library.running().job.id
    library.jobs.move_pointer(job_id, 1, pointer(1, 1, best=BEST), [row(0)])
    library.jobs.release(job_id, 1, drained=True)
    library.claim()
    library.jobs.drop_pointer(job_id, 2)
    job = library.jobs.get(job_id)
    assert (job.pointer, job.best, live(library, job_id)) == (None, None, [])


def test_finish(library: Library) -> None:
    job_id = library.running().job.id
    job = library.jobs.finish(
        job_id, 1, best=BEST, metrics={"epoch": 2}, epochs=[row(2)], artifacts=[WEIGHTS], last_event_id="1-99"
    )
    assert (job.status, job.best, job.metrics) == (JobStatus.SUCCEEDED, BEST, {"epoch": 2})
    assert (job.last_event_id, job.finished_at, job.phase, job.worker) == (
        "1-99",
        library.clock.now,
        None,
        None,
    )
    assert library.jobs.attempts(job_id)[0].outcome == "succeeded"
    assert library.jobs.artifact(job_id, "best.pt", OWNER).sha256 == "f" * 64
    with pytest.raises(NotFound):
        library.jobs.artifact(job_id, "last.pt")


def test_artifacts_of_the_latest_attempt_are_shown(library: Library) -> None:
    job_id = library.running().job.id
    plot = Artifact("results.png", "plot", "1" * 64, 2, "image/png")
    library.jobs.add_artifacts(job_id, 1, [WEIGHTS, plot])
    library.jobs.release(job_id, 1, drained=True)
    library.claim()
    newer = Artifact("best.pt", "weights", "2" * 64, 6, WEIGHTS.media_type)
    library.jobs.add_artifacts(job_id, 2, [WEIGHTS])
    library.jobs.add_artifacts(job_id, 2, [newer])
    shown = {found.name: (found.sha256[0], found.attempt) for found in library.jobs.artifacts(job_id)}
    assert shown == {"best.pt": ("2", 2), "results.png": ("1", 1)}


def test_a_verdict_is_not_retried(library: Library) -> None:
    job_id = library.running().job.id
    job = library.jobs.fail(job_id, 1, VERDICT, exit_code=65)
    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert (job.error["code"], job.error["place"], job.error["value"]) == ("CONFIG_INVALID", "/batch", "0")
    assert job.error["hint"]


def test_the_budget_is_spent(library: Library) -> None:
    job_id = library.running().job.id
    pauses = []
    for attempt in (1, 2, 3):
        job = library.jobs.fail(job_id, attempt, CRASH)
        if job.status is JobStatus.QUEUED:
            assert job.not_before is not None
            pauses.append(job.not_before - library.clock.now)
            assert library.jobs.claim(QUEUE, "w") is None
            library.clock.advance(pauses[-1] + 0.001)
            library.claim()
    waits = [wait_s(job_id, 1, 0.1), wait_s(job_id, 2, 0.2)]
    assert pauses == pytest.approx(waits, abs=1e-3)
    assert (job.status, job.failures) == (JobStatus.FAILED, 3)
    assert job.error is not None and job.error["code"] == "CRASHED"


def test_the_budget_of_a_cause_is_spent_before_the_jobs(open_books: OpenBooks) -> None:
    with open_books(job_retries=9) as library:
        job_id = library.running().job.id
        codes = [FailureCode.STALLED, FailureCode.CRASHED, FailureCode.STALLED, FailureCode.STALLED]
        for attempt, code in enumerate(codes, start=1):
            job = library.jobs.fail(job_id, attempt, Failure(code, "m"))
            if job.status is JobStatus.QUEUED:
                library.clock.advance(100)
                library.claim()
        assert (job.status, job.failures) == (JobStatus.FAILED, 4)
        assert library.jobs.transitions(job_id)[-1].reason == "STALLED, no retries left"


def test_running_time_is_counted_over_attempts(library: Library) -> None:
    job_id = library.running(max_runtime_s=100).job.id
    library.clock.advance(30)
    library.jobs.release(job_id, 1, drained=True)
    library.clock.advance(1000)
    claim = library.claim()
    assert (claim.job.ran_s, claim.job.max_runtime_s) == (30.0, 100)
    library.clock.advance(20)
    assert library.jobs.pause(job_id).ran_s == 30.0
    assert library.jobs.release(job_id, 2).ran_s == 50.0
    library.jobs.activate(job_id)
    library.claim()
    library.clock.advance(60)
    job = library.jobs.fail(job_id, 3, CRASH)
    assert (job.status, job.ran_s) == (JobStatus.FAILED, 110.0)
    assert job.error is not None and job.error["code"] == "TIMED_OUT"
    assert job.error["evidence"]["cause"]["code"] == "CRASHED"
    assert library.jobs.attempts(job_id)[-1].code == "TIMED_OUT"


def test_a_lost_attempt_counts_as_running(library: Library) -> None:
    job_id = library.running(max_runtime_s=10).job.id
    [seen] = library.jobs.held()
    library.clock.advance(11)
    job = library.jobs.expire(seen)
    assert job is not None and job.status is JobStatus.FAILED
    assert job.error is not None and job.error["code"] == "TIMED_OUT"
    assert library.jobs.attempts(job_id)[0].outcome == "lost"


def test_a_maximum_runtime_has_a_default(open_books: OpenBooks) -> None:
    with open_books(max_runtime_s=50) as library:
        assert library.submit().max_runtime_s == 50
        assert library.submit(max_runtime_s=7).max_runtime_s == 7


def test_who_pretends_runs_no_real_job(open_books: OpenBooks, tmp_path: Path) -> None:
    allow_simulation(tmp_path / "sim")
    with open_books() as library:
        real = library.submit()
        pretending = Settings(
            **{**library.settings.model_dump(), "simulate": True, "data_dir": tmp_path / "sim"}
        )
        other = JobBook(library.store, pretending, library.clock.clock())
        assert not real.simulated
        assert (other.claim(QUEUE, "w"), other.count_due()) == (None, {})
        pretended = other.submit(library.new_job()).job
        assert pretended.simulated
        assert library.jobs.count_due() == other.count_due() == {QUEUE: 1}
        assert library.claim().job.id == real.id
        assert library.jobs.claim(QUEUE, "w") is None
        claim = other.claim(QUEUE, "w")
        assert claim is not None and claim.job.id == pretended.id


def test_draining_costs_nothing(library: Library) -> None:
    job_id = library.running().job.id
    for attempt in range(1, 6):
        job = library.jobs.release(job_id, attempt, drained=True, exit_code=75)
        assert (job.status, job.failures, job.preemptions) == (JobStatus.QUEUED, 0, attempt)
        library.claim()
    assert library.jobs.attempts(job_id)[0].outcome == "released"


def test_expire(library: Library) -> None:
    job_id = library.running().job.id
    [seen] = library.jobs.held()
    library.jobs.heartbeat(job_id, 1)
    assert library.jobs.expire(seen) is None
    [seen] = library.jobs.held()
    job = library.jobs.expire(seen)
    assert job is not None
    assert (job.status, job.failures) == (JobStatus.QUEUED, 1)
    assert job.error is not None and job.error["code"] == "WORKER_LOST"
    assert library.jobs.expire(seen) is None
    assert library.jobs.held() == []
    assert library.jobs.attempts(job_id)[0].outcome == "lost"
    last = library.jobs.transitions(job_id)[-1]
    assert (last.actor, last.reason) == ("reaper", "retry after WORKER_LOST")


def test_expire_knows_exactly_one_claim(library: Library) -> None:
    job_id = library.running().job.id
    for stale in (Held(job_id, 0, 1), Held(job_id, 1, 0), Held("job_none", 1, 1)):
        assert library.jobs.expire(stale) is None
    assert library.jobs.get(job_id).status is JobStatus.RUNNING
