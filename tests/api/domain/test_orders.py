"""What people want of jobs besides wishes: edits, reruns, deletion; and how many of them may wait."""

from __future__ import annotations

import pytest

from api.domain.errors import Changed, Conflict, LimitReached, NotFound
from api.domain.records import Artifact, EpochRow, JobStatus
from tests.api.domain.conftest import OpenBooks
from tests.api.domain.library import OTHER, OWNER, QUEUE, Library, pointer

LOG = Artifact("train.log", "log", "f" * 64, 5, "text/plain")


def test_a_higher_priority_goes_first(library: Library) -> None:
    first, second, third = library.submit(), library.submit(), library.submit()
    moved = library.jobs.reprioritise(third.id, 5, OWNER, expected=third.revision)
    assert (moved.priority, moved.revision, moved.status) == (5, third.revision + 1, JobStatus.QUEUED)
    library.jobs.reprioritise(first.id, -1)
    assert [library.claim().job.id for _ in range(3)] == [third.id, second.id, first.id]


def test_a_new_priority_is_in_the_trail_and_an_old_one_is_not(library: Library) -> None:
    job_id = library.running().job.id
    before = library.jobs.transitions(job_id)
    library.jobs.reprioritise(job_id, 0, OWNER)
    assert library.jobs.transitions(job_id) == before
    library.jobs.reprioritise(job_id, 5, OWNER)
    library.jobs.reprioritise(job_id, -2)
    added = library.jobs.transitions(job_id)[len(before) :]
    assert [(step.reason, step.actor) for step in added] == [
        ("priority 0 -> 5", f"user:{OWNER}"),
        ("priority 5 -> -2", "user:admin"),
    ]
    assert {(step.from_status, step.to_status, step.attempt) for step in added} == {("running", "running", 1)}


def test_edit(library: Library) -> None:
    job = library.submit(tags=("a",))
    edited = library.jobs.edit(job.id, OWNER, name="new", tags=["b", "c"])
    assert (edited.name, edited.tags, edited.priority) == ("new", ("b", "c"), 0)
    assert library.jobs.edit(job.id, OWNER, name="new") == edited
    assert library.jobs.edit(job.id, OWNER) == edited
    assert len(library.jobs.transitions(job.id)) == 1
    with pytest.raises(Changed) as error:
        library.jobs.edit(job.id, OWNER, expected=job.revision, name="late")
    assert error.value.code == "REVISION_MISMATCH"
    assert library.jobs.get(job.id).name == "new"
    with pytest.raises(NotFound):
        library.jobs.edit(job.id, OTHER, name="mine")


def test_a_running_job_can_be_edited_and_an_ended_one_not(library: Library) -> None:
    job_id = library.running().job.id
    assert library.jobs.reprioritise(job_id, 3).priority == 3
    assert library.jobs.heartbeat(job_id, 1) is None
    library.jobs.finish(job_id, 1)
    with pytest.raises(Conflict) as error:
        library.jobs.edit(job_id, name="late")
    assert error.value.code == "JOB_FINAL"


def test_a_rerun_knows_its_parent(library: Library) -> None:
    parent = library.submit()
    child = library.submit(parent_id=parent.id)
    assert child.parent_id == parent.id
    for wrong in ("job_none", library.submit(owner=OTHER).id):
        with pytest.raises(NotFound) as error:
            library.submit(parent_id=wrong)
        assert error.value.code == "JOB_NOT_FOUND"


def test_delete(library: Library) -> None:
    kept = library.submit()
    job_id = library.jobs.submit(library.new_job(), key="k", fingerprint="f").job.id
    for act in (lambda: None, lambda: library.jobs.pause(job_id)):
        act()
        with pytest.raises(Conflict) as error:
            library.jobs.delete(job_id, OWNER)
        assert error.value.code == "JOB_NOT_FINAL"
    library.jobs.activate(job_id)
    library.jobs.pause(kept.id)
    claim = library.claim()
    assert claim.job.id == job_id
    library.jobs.move_pointer(job_id, 1, pointer(1, 1), [EpochRow(0, {"map50": 0.1})])
    with pytest.raises(Conflict):
        library.jobs.delete(job_id)
    library.jobs.finish(job_id, 1, artifacts=[LOG])
    with pytest.raises(NotFound):
        library.jobs.delete(job_id, OTHER)
    assert library.jobs.delete(job_id, OWNER).id == job_id
    for call in (library.jobs.get, library.jobs.delete, library.jobs.transitions, library.jobs.attempts):
        with pytest.raises(NotFound):
            call(job_id, OWNER)
    assert library.jobs.list(OWNER).items == (library.jobs.get(kept.id),)
    # A late retry of its submission makes no twin of what was deleted.
    with pytest.raises(Conflict) as error:
        library.jobs.submit(library.new_job(), key="k", fingerprint="f")
    assert error.value.code == "IDEMPOTENCY_CONFLICT"


def test_an_owner_may_queue_so_many(open_books: OpenBooks) -> None:
    with open_books(max_queued_per_owner=2) as library:
        first = library.jobs.submit(library.new_job(), key="k").job
        library.jobs.pause(library.submit().id)
        with pytest.raises(LimitReached) as error:
            library.submit()
        assert error.value.code == "TOO_MANY_QUEUED"
        assert library.jobs.submit(library.new_job(), key="k").job == first
        assert library.submit(owner=OTHER).status is JobStatus.QUEUED
        claim = library.jobs.claim(QUEUE, "w")
        assert claim is not None
        assert library.submit().status is JobStatus.QUEUED


def test_pages_over_several_states(library: Library) -> None:
    made = [library.submit().id for _ in range(7)]
    for job_id in made[1::3]:
        library.jobs.cancel(job_id)
    for job_id in made[2::3]:
        library.jobs.pause(job_id)
    states = [JobStatus.CANCELLED, JobStatus.PAUSED, JobStatus.CANCELLED]
    seen: list[str] = []
    cursor = None
    while True:
        page = library.jobs.list(OWNER, status=states, limit=2, cursor=cursor)
        seen += [job.id for job in page.items]
        cursor = page.next
        if cursor is None:
            break
    assert seen == sorted(made[1::3] + made[2::3], reverse=True)
