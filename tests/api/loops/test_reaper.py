"""The reaper takes back what stood still for a lease, and doubts itself first."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from api.domain.clock import Clock, ManualClock
from api.domain.errors import StoreUnavailable
from api.domain.leasing import Held
from api.domain.records import JobStatus, TaskStatus
from api.domain.settings import Settings
from api.loops.reaper import NOTHING, Reaper, Watch
from api.loops.singleton import Singleton
from tests.api.domain.library import Library

TICK_S = 2.0


class Scene:
    """A reaper with production periods whose clock is moved by hand."""

    def __init__(self, library: Library) -> None:
        self.clock = ManualClock(now=100.0)
        self.library = library
        self.during_renewal: Callable[[], None] = lambda: None
        books = {"jobs": library.jobs, "tasks": library.tasks}
        self.singleton = Singleton(library.store, "reaper", ttl_s=10, clock=self.clock.clock())
        self.reaper = Reaper(books, self.singleton, Settings(), Clock(monotonic=self.monotonic))
        self.readings = 0

    def monotonic(self) -> float:
        self.readings += 1
        if self.readings % 100 == 2:
            self.during_renewal()
        return self.clock.now

    def tick(self, *, times: int = 1, every_s: float = TICK_S) -> None:
        for _ in range(times):
            self.clock.advance(every_s)
            self.readings = 0
            self.reaper.tick()


@pytest.fixture
def scene(library: Library) -> Scene:
    return Scene(library)


def test_a_silent_worker_loses_its_job_after_a_lease(scene: Scene) -> None:
    job_id = scene.library.running().job.id
    scene.tick(times=23)
    assert scene.library.jobs.get(job_id).status is JobStatus.RUNNING
    scene.tick()
    job = scene.library.jobs.get(job_id)
    assert (job.status, job.failures) == (JobStatus.QUEUED, 1)


def test_a_worker_that_renews_keeps_its_job(scene: Scene) -> None:
    job_id = scene.library.running().job.id
    for _ in range(10):
        scene.tick(times=20)
        scene.library.jobs.heartbeat(job_id, 1)
    assert scene.library.jobs.get(job_id).attempt == 1
    assert scene.library.jobs.get(job_id).status is JobStatus.RUNNING


def test_tasks_are_reaped_by_the_same_code(scene: Scene) -> None:
    scene.library.dataset()
    task = scene.library.tasks.claim("ingest", "w")
    assert task is not None
    scene.tick(times=25)
    assert scene.library.tasks.get(task.id).status is TaskStatus.QUEUED


def test_a_late_tick_forgets(scene: Scene) -> None:
    job_id = scene.library.running().job.id
    scene.tick(times=20)
    scene.tick(every_s=15.1)
    scene.tick(times=22)
    assert scene.library.jobs.get(job_id).status is JobStatus.RUNNING
    scene.tick()
    assert scene.library.jobs.get(job_id).status is JobStatus.QUEUED


def test_a_slow_renewal_forgets(scene: Scene) -> None:
    job_id = scene.library.running().job.id
    scene.tick(times=20)
    scene.during_renewal = lambda: scene.clock.advance(2.1)
    scene.tick()
    scene.during_renewal = lambda: None
    scene.tick(times=22)
    assert scene.library.jobs.get(job_id).status is JobStatus.RUNNING
    scene.tick()
    assert scene.library.jobs.get(job_id).status is JobStatus.QUEUED


def test_a_reaper_that_lost_its_name_does_nothing_and_forgets(scene: Scene) -> None:
    job_id = scene.library.running().job.id
    scene.tick(times=20)
    scene.singleton.release()
    other = Singleton(scene.library.store, "reaper", ttl_s=10, clock=scene.clock.clock())
    assert other.hold()
    scene.tick(times=2)
    other.release()
    scene.tick(times=23)
    assert scene.library.jobs.get(job_id).status is JobStatus.RUNNING
    scene.tick()
    assert scene.library.jobs.get(job_id).status is JobStatus.QUEUED


def test_a_database_that_was_away_makes_it_forget(scene: Scene) -> None:
    job_id = scene.library.running().job.id
    scene.tick(times=20)

    def away() -> list[Held]:
        raise StoreUnavailable("away")

    held, scene.library.jobs.held = scene.library.jobs.held, away  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        scene.tick()
    scene.library.jobs.held = held  # type: ignore[method-assign]
    scene.tick(times=22)
    assert scene.library.jobs.get(job_id).status is JobStatus.RUNNING


def test_watch() -> None:
    a, b = Held("a", 1, 1), Held("b", 1, 1)
    watch = NOTHING.look([a, b], 0.0).look([a, Held("b", 1, 2)], 5.0)
    assert watch == Watch({a: 0.0, Held("b", 1, 2): 5.0})
    assert watch.stale(9.9, 10.0) == []
    assert watch.stale(10.0, 10.0) == [a]
    assert watch.look([], 11.0) == NOTHING
