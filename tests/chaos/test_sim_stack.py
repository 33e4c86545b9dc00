"""The harness of the fault tests, without a fault and with the simplest one."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.sim_stack import SimStack
from tests.chaos.watching import Watcher


def test_jobs_run_to_their_end(tmp_path: Path) -> None:
    stack = SimStack(tmp_path / "data", workers=2)
    with stack:
        stack.set_pace(batches=3, batch_s=0.01)
        jobs = stack.submit(4, epochs=3)
        watchers = [Watcher(stack, job.id) for job in jobs]
        stack.await_all(jobs)
        for job, watcher in zip(jobs, watchers, strict=True):
            assert stack.assert_whole(job, watchers=[watcher]) == 1
        assert stack.children() == []


def test_a_killed_worker_s_job_goes_on(tmp_path: Path) -> None:
    with SimStack(tmp_path / "data", workers=2) as stack:
        stack.set_pace(batches=10, batch_s=0.01, hold=(1, 5))
        (job,) = stack.submit(epochs=3)
        watcher = Watcher(stack, job.id)
        stack.await_place(job.id, 1, 4)
        stack.worker_of(job.id).kill()
        stack.set_pace(batches=10, batch_s=0.01)
        stack.await_state(job.id, "succeeded")
        assert stack.assert_whole(job, attempts=2, watchers=[watcher]) == 2
