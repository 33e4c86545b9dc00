"""Polite ends: SIGTERM of one worker, Ctrl-C of the whole stack.

A run under way writes a checkpoint of where it is, costs its job nothing of the budget, and goes on
elsewhere or at the next start.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import sys
import time
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest

from api.client import Client, Job
from api.domain.settings import allow_simulation
from tests.chaos.outcome import FINAL
from tests.chaos.sim_stack import PERIODS, SimStack
from tests.chaos.watching import Watcher
from tests.support.figures import record
from tests.support.members import Program, living, mentioning, until
from tests.support.moments import seeded
from tests.support.shapes import TINY_MODEL, write_shapes
from worker.pace import PACE_FILE
from worker.simulator import final_digest
from yolocore.spec.config import parse_config

PACE = {"batches": 40, "batch_s": 0.02, "prepare_s": 0.1, "validate_s": 0.1}
RUN_S = 3.0
# Only the drain itself writes one in the middle of an epoch.
NEVER_S = 3600.0


def batches_behind(events: list[dict[str, Any]], pointer: dict[str, Any], batches: int) -> int:
    """Return how many batches were trained after the checkpoint that a pointer names."""
    trained = [event for event in events if event["type"] == "batch"]
    if not trained:
        return 0
    last = trained[-1]["epoch"] * batches + trained[-1]["batch"] + 1
    return int(last - (pointer["epoch"] * batches + pointer["batch"]))


def assert_drained(stack: SimStack, job: Job) -> int:
    """See that attempt 1 was drained, at no cost; return how many batches its checkpoint is old."""
    ((failures, preemptions),) = stack.query(
        "SELECT failures, preemptions FROM jobs WHERE id = :id", id=job.id
    )
    assert (failures, preemptions) == (0, 1)
    resumed = stack.attempts(job.id)[1]["resumed_from"]
    behind = batches_behind(stack.journal(job.id, 1), resumed, int(PACE["batches"]))
    assert behind <= 1
    return behind


def drain_one(stack: SimStack, random: Random) -> None:
    """Send SIGTERM to the worker of a job some time after its first batch, and see another go on."""
    (job,) = stack.submit(epochs=3)
    watcher = Watcher(stack, job.id)
    stack.await_place(job.id, 0, 0)
    delay_s = random.uniform(0.0, RUN_S * 0.7)
    time.sleep(delay_s)
    worker = stack.worker_of(job.id)
    since = time.monotonic()
    assert worker.stop() == 0
    record("SIGTERM of a worker: it has ended", time.monotonic() - since, "s", 5.0)
    stack.await_state(job.id, ("running", *FINAL), attempt=2)
    record("SIGTERM of a worker: another goes on", time.monotonic() - since, "s", 5.0)
    behind = assert_drained(stack, job)
    record("SIGTERM of a worker: the checkpoint is old", behind, "batches", 1)
    stack.await_state(job.id, "succeeded")
    assert stack.assert_whole(job, watchers=[watcher]) == 2
    assert ("queued", "drained") in [(item["to"], item["reason"]) for item in stack.transitions(job.id)]
    held_by = [item["worker"] for item in stack.attempts(job.id)]
    assert held_by[0] != held_by[1]
    print(f"drained {delay_s:.2f} s after the first batch, {behind} batches old")
    stack.restart(worker.name)


def test_a_worker_told_to_end_hands_its_job_to_another(tmp_path: Path) -> None:
    random = seeded("SIGTERM of a worker")
    with SimStack(tmp_path / "data", workers=2, checkpoint_every_s=NEVER_S) as stack:
        stack.set_pace(**PACE)
        for _ in range(2):
            drain_one(stack, random)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_workers_told_to_end_at_random_moments(tmp_path: Path) -> None:
    random = seeded("SIGTERM of a worker")
    with SimStack(tmp_path / "data", workers=2, checkpoint_every_s=NEVER_S) as stack:
        stack.set_pace(**PACE)
        for _ in range(10):
            drain_one(stack, random)


class SimulatedUp:
    """`trainshed up` as a user starts it, with trainers that only pretend; of the harness, the rest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        allow_simulation(folder)
        (folder / PACE_FILE).write_text(json.dumps(PACE), encoding="utf-8")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TRAINSHED_")}
        values = {**PERIODS, "checkpoint_every_s": NEVER_S, "stop_grace_s": 10.0}
        told = {f"TRAINSHED_{name.upper()}": str(value) for name, value in values.items()}
        environment = {**kept, **told, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "api.cli.main", "--data", str(folder)]
        command += ["up", "--simulate", "--port", "0"]
        self.program = Program("up", command, environment, folder.parent / "up.log")
        self._starts = 0

    def start(self) -> None:
        """Start it and wait until it says that it is open."""
        self._starts += 1
        self.program.start()
        until(
            lambda: self.program.tail(1000).count("open http") >= self._starts or not self.program.is_alive,
            "the stack's start",
        )
        assert self.program.is_alive, self.program.tail()

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Read the book itself."""
        with contextlib.closing(sqlite3.connect(self.folder / "book.sqlite3", timeout=15)) as book:
            return book.execute(sql, values).fetchall()

    def journal(self, job: Job, attempt: int) -> list[dict[str, Any]]:
        """Return what an attempt told, whole lines only."""
        path = self.folder / "jobs" / job.id / "attempts" / str(attempt) / "events.jsonl"
        data = path.read_bytes() if path.exists() else b""
        return [json.loads(line) for line in data.splitlines(keepends=True) if line.endswith(b"\n")]

    def strangers(self) -> list[psutil.Process]:
        """Return processes that speak of this stack's folder."""
        return mentioning(str(self.folder))

    def end(self) -> None:
        """Kill whatever is left."""
        self.program.end()
        for process in self.strangers():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def client(self) -> Client:
        """Open a client by what the stack left in its folder."""
        found = json.loads((self.folder / "run" / "connection.json").read_text(encoding="utf-8"))
        return Client(found["url"], found["token"])


def test_ctrl_c_of_the_stack_checkpoints_and_the_next_start_goes_on(tmp_path: Path) -> None:
    up = SimulatedUp(tmp_path / "data")
    try:
        up.start()
        with up.client() as client:
            job = submit_somewhere(client, tmp_path)
            batches = await_batch(up, job, 45)
            family = up.program.family()
            since = time.monotonic()
        up.program.send(signal.SIGINT)
        assert up.program.process.wait(60) == 0, up.program.tail()
        record("Ctrl-C of the stack: all has ended", time.monotonic() - since, "s", 10.0)
        assert living(family) == [] and up.strangers() == []
        ((status, failures, preemptions, pointer),) = up.query(
            "SELECT status, failures, preemptions, pointer FROM jobs WHERE id = ?", job.id
        )
        assert (status, failures, preemptions) == ("queued", 0, 1)
        behind = batches_behind(up.journal(job, 1), json.loads(pointer), batches)
        record("Ctrl-C of the stack: the checkpoint is old", behind, "batches", 1)
        assert behind <= 1
        up.start()
        with up.client() as client:
            done = client.wait_for_job(job.id, timeout_s=60)
            assert (done.status, done.attempt) == ("succeeded", 2)
            assert [row["epoch"] for row in client.metrics(job.id)] == [0, 1, 2]
            assert client.job(job.id).as_json()["failures"] == 0
            (last,) = [found for found in client.artifacts(job.id) if found.name == "last.pt"]
            weights = client.request("GET", f"/v1/jobs/{job.id}/artifacts/{last.name}").json()
            config = parse_config(done.as_json()["config"])
        assert weights["digest"] == final_digest(config, batches)
    finally:
        up.end()


def submit_somewhere(client: Client, folder: Path) -> Job:
    """Send in a small dataset and a model, and submit a job on them at once."""
    write_shapes(folder / "shapes", num_train=8, num_val=2)
    with zipfile.ZipFile(folder / "shapes.zip", "w") as packed:
        for file in sorted((folder / "shapes").rglob("*.*")):
            packed.write(file, file.relative_to(folder / "shapes"))
    dataset = client.push_dataset(folder / "shapes.zip", "shapes")
    model = client.push_architecture(TINY_MODEL, "tiny")
    return client.submit({"dataset": dataset.id, "architecture": model.id, "config": {"epochs": 3}})


def await_batch(up: SimulatedUp, job: Job, count: int) -> int:
    """Wait until so many batches were told; return how many an epoch has."""

    def told() -> list[dict[str, Any]]:
        return [event for event in up.journal(job, 1) if event["type"] == "batch"]

    def reached() -> bool:
        return bool(told()) and told()[-1]["epoch"] * told()[-1]["batches"] + told()[-1]["batch"] >= count

    until(reached, f"batch {count}")
    return int(told()[0]["batches"])
