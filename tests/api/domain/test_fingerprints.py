"""Which jobs are the same run, and what becomes of a submission of one that is there, on both databases."""

from __future__ import annotations

import pytest

from api.domain.errors import Conflict, RunExists
from api.domain.failures import Failure, FailureCode
from api.domain.fingerprints import OnDuplicate, fingerprint
from api.domain.records import DatasetStatus, Job, JobStatus
from tests.api.domain.library import OTHER, OWNER, Library

PARTS = {"dataset_hash": "d", "architecture_hash": "a", "config_hash": "c", "weights_sha256": None}
REUSE, REFUSE = OnDuplicate.REUSE, OnDuplicate.REFUSE


def test_every_part_counts() -> None:
    whole = fingerprint(**PARTS, version="1")
    assert whole == fingerprint(**PARTS, version="1") and len(whole) == 64
    others = [fingerprint(**{**PARTS, name: "x"}, version="1") for name in PARTS]
    assert len({whole, *others, fingerprint(**PARTS, version="2")}) == 6


def test_equal_runs_are_found_by_it(library: Library) -> None:
    first, second = library.submit(), library.submit(priority=3, tags=("x",))
    other = library.jobs.submit(library.new_job(weights_id=None)).job
    assert first.fingerprint == second.fingerprint == other.fingerprint
    changed = library.new_job()
    changed = type(changed)(**{**changed.__dict__, "config_hash": "e" * 64})
    assert library.jobs.submit(changed).job.fingerprint != first.fingerprint
    assert library.submit(owner=OTHER).fingerprint == first.fingerprint
    mine = library.jobs.list(OWNER, fingerprint=first.fingerprint).items
    assert [job.id for job in mine] == [other.id, second.id, first.id]
    assert library.jobs.list(OWNER, fingerprint="0" * 64).items == ()


def test_what_is_ingested_becomes_its_content(library: Library) -> None:
    waiting = library.submit(ready=False)
    again = library.jobs.submit(library.new_job(ready=False), on_duplicate=REUSE)
    assert again.is_reused and again.job.id == waiting.id
    library.ingest()
    after = library.jobs.get(waiting.id)
    assert after.fingerprint != waiting.fingerprint
    assert library.submit().fingerprint == after.fingerprint


def run(library: Library, on_duplicate: OnDuplicate, key: str | None = None) -> Job:
    return library.jobs.submit(library.new_job(), on_duplicate=on_duplicate, key=key).job


def test_the_same_run_is_taken_or_refused_while_it_may_succeed(library: Library) -> None:
    claim = library.running()
    job_id = claim.job.id
    assert run(library, REUSE).id == job_id
    with pytest.raises(RunExists) as refused:
        run(library, REFUSE)
    assert (refused.value.code, refused.value.job_id) == ("RUN_EXISTS", job_id)
    library.jobs.finish(job_id, claim.attempt)
    newer = library.submit()
    assert run(library, REUSE).id == job_id, "one that has a result goes first"
    library.jobs.cancel(newer.id)
    assert len(library.jobs.list(OWNER).items) == 2
    assert library.submit(owner=OTHER).owner == OTHER


def test_what_ends_without_the_result_is_no_such_run(library: Library) -> None:
    failed = library.running()
    library.jobs.fail(failed.job.id, 1, Failure(FailureCode.CONFIG_INVALID, "no"))
    cancelled = run(library, REFUSE)
    library.jobs.cancel(cancelled.id)
    stopping = run(library, REFUSE)
    library.claim()
    library.jobs.stop(stopping.id)
    stopped = run(library, REUSE)
    assert stopped.id not in (failed.job.id, cancelled.id, stopping.id)
    done = library.jobs.finish(stopping.id, 1)
    assert (done.status, done.stopped) == (JobStatus.SUCCEEDED, True)
    assert run(library, REUSE).id == stopped.id
    library.claim()
    assert not library.jobs.finish(stopped.id, 1).stopped


def test_a_key_stands_for_the_run_that_was_taken(library: Library) -> None:
    first = library.submit()
    assert run(library, REUSE, key="k").id == first.id
    again = library.jobs.submit(library.new_job(), key="k")
    assert (again.job.id, again.created, again.is_reused) == (first.id, False, False)
    with pytest.raises(Conflict):
        run(library, REFUSE, key="other")
    assert library.jobs.submit(library.new_job(), key="other").created, "a refusal uses up no key"


def test_an_invalid_dataset_ends_them_as_before(library: Library) -> None:
    waiting = library.submit(ready=False)
    library.ingest(DatasetStatus.INVALID)
    assert library.jobs.get(waiting.id).status is JobStatus.FAILED
