"""Many short jobs over four workers, while all that can happen to them happens at random.

Jobs are cancelled, stopped, paused and let go on, children and workers are killed and started again. At the
end every job has ended, nothing still runs that should not, and the service is as small as it was.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random

import psutil
import pytest

from api.client import ApiError, Job
from tests.chaos.outcome import FINAL
from tests.chaos.sim_stack import SimStack
from tests.support.figures import record
from tests.support.members import living, mentioning, until
from tests.support.moments import seeded

JOBS = int(os.environ.get("TRAINSHED_TEST_SOAK_JOBS", "300"))
WARM_UP = 12
PACE = {"batches": 6, "batch_s": 0.03, "noise": 0.05}
MEMORY_MIB = 40.0
DESCRIPTORS = 16


@dataclass(frozen=True)
class Size:
    """What the members hold: open descriptors and resident memory (MiB) of each that was never restarted."""

    descriptors: dict[int, int]
    memory_mib: dict[int, float]


def size_of(stack: SimStack) -> Size:
    members = [psutil.Process(member.pid) for member in stack.members.values() if member.is_alive]
    return Size(
        {one.pid: one.num_fds() for one in members},
        {one.pid: one.memory_info().rss / 2**20 for one in members},
    )


class Unrest:
    """Does something at random to a random job, or to who runs it; counts what was done."""

    def __init__(self, stack: SimStack, random: Random) -> None:
        self.stack = stack
        self.random = random
        self.done: Counter[str] = Counter()

    def act(self) -> None:
        """Do one thing; a job that has ended meanwhile is left alone."""
        kinds = ("cancel", "stop", "pause", "activate", "kill child", "kill worker", "end worker", "rest")
        kind = self.random.choices(kinds, weights=(3, 2, 4, 4, 3, 1, 1, 6))[0]
        with contextlib.suppress(ApiError, psutil.NoSuchProcess):
            if kind == "kill child":
                for child in self.random.sample(children := self.stack.children(), min(1, len(children))):
                    child.kill()
            elif kind in ("kill worker", "end worker"):
                self._replace(kind)
            elif kind != "rest":
                self._wish(kind)
            self.done[kind] += 1
        time.sleep(0.2)

    def _wish(self, kind: str) -> None:
        open_jobs = [job for job, (status, _) in self.stack.states().items() if status not in FINAL]
        if open_jobs:
            with self.stack.client() as client:
                getattr(client, kind)(self.random.choice(open_jobs))

    def _replace(self, kind: str) -> None:
        # The last worker stays: its figures are those of a long life.
        worker = self.random.choice(self.stack.of("worker")[:-1])
        if worker.is_alive:
            if kind == "kill worker":
                worker.kill()
            else:
                # One that only just starts does not listen yet, and has claimed nothing either.
                assert worker.stop() in (0, -signal.SIGTERM)
        worker.start()


def finish(stack: SimStack, jobs: list[Job], timeout_s: float) -> None:
    """Let go on what is paused until every job has ended."""

    def all_ended() -> bool:
        states = {job.id: stack.state(job.id)[0] for job in jobs}
        with stack.client() as client:
            for job_id in [job_id for job_id, status in states.items() if status == "paused"]:
                client.activate(job_id)
        return all(status in FINAL for status in states.values())

    until(all_ended, "every job to end", timeout_s)


def base_keys(stack: SimStack) -> set[str]:
    """Return the keys of Redis beside the streams of jobs, which live on for a while."""
    with stack.redis() as server:
        return {key.decode() for key in server.keys("*")}


def leftovers(stack: SimStack, before: set[str]) -> set[str]:
    return base_keys(stack) - before


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_many_jobs_in_unrest(tmp_path: Path) -> None:
    random = seeded(f"soak of {JOBS} jobs")
    periods = {"lease_s": 2.0, "reaper_gap_s": 1.5, "stream_ttl_final_s": 2.0, "collector_tick_s": 1.0}
    with SimStack(tmp_path / "data", workers=4, job_retries=50, **periods) as stack:
        stack.set_pace(**PACE)
        unrest = Unrest(stack, random)
        warm = stack.submit(WARM_UP, epochs=2)
        stack.await_all(warm)
        time.sleep(3.0)
        keys, before = base_keys(stack), size_of(stack)
        began = time.monotonic()
        jobs: list[Job] = []
        while len(jobs) < JOBS:
            jobs += stack.submit(min(random.randint(1, 4), JOBS - len(jobs)), epochs=random.randint(1, 4))
            for _ in range(3):
                unrest.act()
            # No more than a few wait at any time.
            until(lambda: len(open_jobs(stack)) < 12 or unrest.act(), "room", 120)
        finish(stack, jobs, 180)
        took_s = time.monotonic() - began
        for worker in stack.of("worker"):
            stack.await_ready(worker.name)
        assert_calm(stack, keys, before)
        ended = Counter(stack.state(job.id)[0] for job in jobs)
        print(f"{len(jobs)} jobs in {took_s:.0f} s: {dict(ended)}; done to them: {dict(unrest.done)}")
        record("soak: jobs that ended", sum(ended.values()), "jobs", JOBS, at_least=True)
        assert ended["failed"] == 0
        for job in jobs:
            assert_ended_once(stack, job)


def open_jobs(stack: SimStack) -> list[str]:
    return [job for job, (status, _) in stack.states().items() if status in ("queued", "running")]


def assert_ended_once(stack: SimStack, job: Job) -> None:
    """See that a job has one end, that its attempts rise, and that a full run has each epoch once."""
    rows = stack.query(
        "SELECT to_status, attempt FROM job_transitions WHERE job_id = :id ORDER BY seq", id=job.id
    )
    claims = [attempt for status, attempt in rows if status == "running"]
    assert claims == list(range(1, len(claims) + 1)), rows
    assert [status for status, _ in rows if status in FINAL] == [rows[-1][0]], rows
    epochs = stack.query(
        "SELECT epoch FROM epoch_metrics WHERE job_id = :id AND NOT superseded ORDER BY epoch", id=job.id
    )
    assert [epoch for (epoch,) in epochs] == list(range(len(epochs))), epochs


def assert_calm(stack: SimStack, keys: set[str], before: Size) -> None:
    """See that no process, descriptor, memory or key is left of all that was done."""
    until(lambda: not stack.children(), "the end of every child", 10)
    members = {member.pid for member in stack.members.values()}
    found = [one for one in living(mentioning(str(stack.folder))) if one.pid not in members]
    record("soak: processes left", len(found), "", 0)
    assert found == []
    # Queue messages are taken as workers rest; streams of ended jobs live for their last seconds.
    with contextlib.suppress(AssertionError):
        until(lambda: not leftovers(stack, keys), "Redis to hold its base keys", 30)
    left = leftovers(stack, keys)
    record("soak: keys left in Redis", len(left), "", 0)
    after = size_of(stack)
    same = after.memory_mib.keys() & before.memory_mib.keys()
    grown = max(after.memory_mib[pid] - before.memory_mib[pid] for pid in same)
    opened = max(after.descriptors[pid] - before.descriptors[pid] for pid in same)
    record("soak: memory grown, worst member", grown, "MiB", MEMORY_MIB)
    record("soak: descriptors more, worst member", opened, "", DESCRIPTORS)
    with stack.redis() as server:
        told = {key: server.ttl(key) for key in sorted(left)}
    assert not left, told
    assert grown <= MEMORY_MIB
    assert opened <= DESCRIPTORS
