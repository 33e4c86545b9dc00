"""Jobs in every state, made over HTTP and by playing the worker, for tests of what may be done with them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import httpx

from api.domain.failures import Failure, FailureCode
from api.domain.records import Artifact, Claim, JobStatus, Pointer
from tests.support.service import World, a_dataset, an_architecture, submitted

BEST = {"epoch": 1, "map50": 0.5}
CRASH = Failure(FailureCode.CRASHED, "exit 1")
WRONG = Failure(FailureCode.CONFIG_INVALID, "no")


class Jobs:
    """Makes jobs in any state, each in a queue of its own, on one dataset."""

    def __init__(self, world: World, client: httpx.Client) -> None:
        self.world, self.client = world, client
        self.book = world.jobs
        self.dataset = a_dataset(world, client)
        self.unready = a_dataset(world, client, "unready", ready=False)
        self.architecture = an_architecture(client)
        self._numbers = itertools.cycle(range(1, 100))

    def queued(self, dataset: str | None = None, **more: Any) -> str:
        """Submit one."""
        queue = f"train.g{next(self._numbers)}"
        body = {"dataset": dataset or self.dataset, "architecture": self.architecture, "queue": queue}
        return str(submitted(self.client, {**body, **more})["id"])

    def _claim(self, job_id: str) -> Claim:
        queue = self.book.get(job_id).queue
        # There are fewer queues than tests.
        for other in self.book.list(status=[JobStatus.QUEUED], limit=500).items:
            if other.queue == queue and other.id != job_id:
                self.book.cancel(other.id)
        claim = self.book.claim(queue, "w1")
        assert claim is not None and claim.job.id == job_id
        return claim

    def running(self, *, best: bool = False, wish: str | None = None) -> str:
        """Submit one and claim it; with `best` it has a checkpoint that knows its best epoch."""
        job_id = self.queued()
        attempt = self._claim(job_id).attempt
        if best:
            self.book.move_pointer(job_id, attempt, Pointer(attempt, 2, 0, "c.pt", "e" * 64, best=BEST))
        if wish is not None:
            self.client.post(f"/v1/jobs/{job_id}/{wish}")
        return job_id

    def after_failure(self) -> str:
        """Return one that waits for its next attempt."""
        job_id = self.running()
        self.book.fail(job_id, 1, CRASH)
        return job_id

    def paused(self, *, best: bool = False) -> str:
        """Return one that ran and is held."""
        job_id = self.running(best=best, wish="pause")
        self.book.release(job_id, 1)
        return job_id

    def queued_again(self, *, best: bool = False, wish: str | None = None) -> str:
        """Return one that ran and waits for a worker, or that a worker gave back with a wish upon it."""
        job_id = self.running(best=best, wish=wish)
        self.book.release(job_id, 1, drained=True)
        return job_id

    def store_weights(self, job_id: str) -> None:
        """Store what a trainer delivers."""
        attempt = self.book.get(job_id).attempt
        self.book.add_artifacts(job_id, attempt, [Artifact("best.pt", "weights", "f" * 64, 5, "text/plain")])

    def succeeded(self, *, best: bool = False) -> str:
        """Return one that finished."""
        job_id = self.running(best=best)
        self.book.finish(job_id, 1)
        return job_id

    def failed(self) -> str:
        """Return one that failed for good."""
        job_id = self.running()
        self.book.fail(job_id, 1, WRONG)
        return job_id

    def cancelled(self) -> str:
        """Return one that was dropped before it ran."""
        job_id = self.queued()
        self.book.cancel(job_id)
        return job_id


Make = Callable[[Jobs], str]
STATES: dict[str, Make] = {
    "queued": lambda jobs: jobs.queued(),
    "waiting for its dataset": lambda jobs: jobs.queued(jobs.unready),
    "waiting to retry": lambda jobs: jobs.after_failure(),
    "queued with a best": lambda jobs: jobs.queued_again(best=True),
    "queued, to be stopped": lambda jobs: jobs.queued_again(best=True, wish="stop"),
    "running": lambda jobs: jobs.running(),
    "running, to be paused": lambda jobs: jobs.running(wish="pause"),
    "running, to be stopped": lambda jobs: jobs.running(wish="stop"),
    "running, to be cancelled": lambda jobs: jobs.running(wish="cancel"),
    "paused": lambda jobs: jobs.paused(),
    "paused with a best": lambda jobs: jobs.paused(best=True),
    "succeeded": lambda jobs: jobs.succeeded(),
    "succeeded with a best": lambda jobs: jobs.succeeded(best=True),
    "failed": lambda jobs: jobs.failed(),
    "cancelled": lambda jobs: jobs.cancelled(),
}
FINAL = ("succeeded", "succeeded with a best", "failed", "cancelled")
