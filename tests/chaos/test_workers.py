"""Workers killed with `kill -9`, of training and of ingest, at random moments of what they do.

Whatever the moment: the child follows within a second, the claim is taken back within the lease and a
little, and the work is done exactly once.
"""

from __future__ import annotations

import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random

import psutil
import pytest

from tests.chaos.sim_stack import SimStack
from tests.chaos.watching import Watcher
from tests.support.figures import record_spread
from tests.support.members import Program, living, mentioning, until
from tests.support.moments import seeded
from tests.support.shapes import write_shapes

LEASE_S = 2.0
# What is promised on top of the lease, and what a loaded machine is granted on top of that.
REQUEUE_S = LEASE_S + 5.0
SLACK_S = 20.0
PACE = {"batches": 12, "batch_s": 0.02, "prepare_s": 0.2, "validate_s": 0.05, "export_s": 0.15}
RUN_S = 1.8  # about what a job takes at this pace


@dataclass(frozen=True)
class Kill:
    """What followed the kill of a worker, in seconds; None where there was no child to end."""

    orphaned_s: float | None
    requeued_s: float


def record_kills(what: str, kills: list[Kill], target_s: float = REQUEUE_S) -> None:
    orphans = [kill.orphaned_s for kill in kills if kill.orphaned_s is not None]
    if orphans:
        record_spread(f"{what} killed: its child gone", orphans, "s", 1.0)
    requeued = [kill.requeued_s for kill in kills]
    record_spread(f"{what} killed: work queued again", requeued, "s", target_s)


class Lane:
    """Submits jobs one after another and kills the worker of each once."""

    def __init__(self, stack: SimStack, random: Random) -> None:
        self.stack = stack
        self.random = random

    def run(self) -> Kill:
        """Go on until a kill has struck a job that ran."""
        while True:
            (job,) = self.stack.submit(epochs=3)
            watcher = Watcher(self.stack, job.id)
            kill = self._strike(job.id)
            self.stack.await_state(job.id, "succeeded")
            attempts = self.stack.assert_whole(job, watchers=[watcher])
            assert attempts == (1 if kill is None else 2)
            if kill is not None:
                return kill

    def _strike(self, job_id: str) -> Kill | None:
        until(lambda: self.stack.state(job_id)[1] == 1, "the claim")
        delay_s = self.random.uniform(0.0, RUN_S)
        time.sleep(delay_s)
        name = runner(self.stack, job_id)
        if name is None:
            return None
        children = self.stack.children(job_id)
        since = time.monotonic()
        self.stack.members[name].kill()
        hit = self.stack.state(job_id) == ("running", 1)
        # One may have been born since we looked.
        children = [*children, *self.stack.children(job_id, 1)]
        orphaned = await_end(children, since)
        requeued = 0.0
        if hit:
            until(lambda: self.stack.state(job_id) != ("running", 1), "the job to be queued", SLACK_S)
            requeued = time.monotonic() - since
        # Others claim meanwhile.
        self.stack.members[name].start()
        print(
            f"killed {name} {delay_s:.2f} s after the claim: child gone after {orphaned or 0:.2f} s,"
            f" queued after {requeued:.2f} s"
        )
        return Kill(orphaned, requeued) if hit else None


def runner(stack: SimStack, job_id: str) -> str | None:
    """Return the member that holds the claim on a job now, if one does."""
    sql = (
        "SELECT w.pid FROM jobs j JOIN workers w ON w.id = j.worker WHERE j.id = :id AND j.status = 'running'"
    )
    pids = [pid for (pid,) in stack.query(sql, id=job_id)]
    return next((name for name, one in stack.members.items() if one.is_alive and one.pid in pids), None)


def await_end(processes: list[psutil.Process], since: float) -> float | None:
    """Wait until processes are gone; return the seconds from `since`, None if there were none."""
    if not processes:
        return None
    until(lambda: not living(processes), "the end of the child", 5.0)
    return time.monotonic() - since


def kill_workers(folder: Path, kills: int, book_url: str | None) -> None:
    random = seeded(f"{kills} kills of a worker")
    periods = {"lease_s": LEASE_S, "reaper_gap_s": 1.5}
    with SimStack(folder / "data", workers=3, database_url=book_url, **periods) as stack:
        stack.set_pace(**PACE)
        lanes = [Lane(stack, Random(random.random())) for _ in range(2)]
        with ThreadPoolExecutor(2) as pool:
            done = list(pool.map(lambda number: lanes[number % 2].run(), range(kills)))
        record_kills("worker", done)
        assert stack.children() == []


def test_workers_killed_at_random_moments(tmp_path: Path, book_url: str | None) -> None:
    kill_workers(tmp_path, 5, book_url)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_workers_killed_at_twenty_random_moments(tmp_path: Path, book_url: str | None) -> None:
    kill_workers(tmp_path, 20, book_url)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return an archive whose ingest takes a while."""
    folder = tmp_path_factory.mktemp("pictures")
    write_shapes(folder / "shapes", num_train=400, num_val=20)
    path = folder / "shapes.zip"
    with zipfile.ZipFile(path, "w") as packed:
        for file in sorted((folder / "shapes").rglob("*.*")):
            packed.write(file, file.relative_to(folder / "shapes"))
    yield path


def ingest_and_kill(stack: SimStack, archive: Path, name: str, delay_s: float) -> Kill | None:
    """Upload, kill the ingest worker a while after its child came, and see that one good dataset remains."""
    member = stack.members["ingest-0"]
    with stack.client() as client:
        dataset = client.push_dataset(archive, name)
        # It waits for the dataset.
        job = client.submit({**stack.request(epochs=1), "dataset": dataset.id})
        ((task_id,),) = stack.query("SELECT id FROM tasks WHERE subject_id = :id", id=dataset.id)
        until(lambda: child_of_task(stack, task_id), "the child that ingests")
        time.sleep(delay_s)
        kill = kill_ingest(stack, member, task_id)
        if kill is None:
            print(f"{name}: the ingest had ended")
        stack.restart("ingest-0")
        ready = client.wait_for_dataset(dataset.id, timeout_s=60)
        assert ready.status == "ready"
    ((status, attempt, failures),) = stack.query(
        "SELECT status, attempt, failures FROM tasks WHERE id = :id", id=task_id
    )
    assert (status, attempt, failures) == ("succeeded", *((2, 1) if kill else (1, 0)))
    stack.await_state(job.id, "succeeded")
    assert stack.assert_whole(job) == 1
    return kill


def kill_ingest(stack: SimStack, member: Program, task_id: str) -> Kill | None:
    sql = "SELECT status, attempt FROM tasks WHERE id = :id"
    children = child_of_task(stack, task_id)
    since = time.monotonic()
    member.kill()
    hit = stack.query(sql, id=task_id) == [("running", 1)]
    orphaned = await_end(children, since)
    if not hit:
        return None
    until(lambda: stack.query(sql, id=task_id) != [("running", 1)], "the ingest to be queued", SLACK_S)
    return Kill(orphaned, time.monotonic() - since)


def child_of_task(stack: SimStack, task_id: str) -> list[psutil.Process]:
    return mentioning(str(stack.settings.tasks_dir / task_id))


def kill_ingest_workers(folder: Path, archive: Path, kills: int) -> None:
    random = seeded(f"{kills} kills of an ingest worker")
    with SimStack(folder / "data", workers=1, ingest=True, lease_s=LEASE_S, reaper_gap_s=1.5) as stack:
        stack.set_pace(batch_s=0.001)
        done: list[Kill] = []
        # The same bytes again would be the same images: only the first ingest has to store them.
        for number in range(kills):
            kill = ingest_and_kill(stack, archive, f"set-{number}", random.uniform(0.0, 0.8))
            if kill is not None:
                done.append(kill)
        assert done, "no kill came in time"
        record_kills("ingest worker", done)


def test_an_ingest_worker_killed_in_the_middle(tmp_path: Path, archive: Path) -> None:
    kill_ingest_workers(tmp_path, archive, 1)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ingest_workers_killed_at_random_moments(tmp_path: Path, archive: Path) -> None:
    kill_ingest_workers(tmp_path, archive, 10)
