"""Faults of the whole service while it really trains: killed processes, a lost Valkey, cancels, stops.

One small job is trained undisturbed. Each fault strikes an equal job in the middle of an epoch, and must
leave the same epochs and the same weights to the bit.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from api.client import Artifact, Client, Job
from tests.chaos.real_stack import (
    LEASE_S,
    Follower,
    RealStack,
    interrupt,
    living,
    position,
    until,
    without_repeats,
)
from tests.support.figures import record
from tests.support.shapes import TINY_MODEL, write_shapes
from tests.support.shared import ROOT
from yolocore.train.checkpoint import load_checkpoint

EPOCHS = 3
CONFIG: dict[str, Any] = {
    "epochs": EPOCHS,
    "imgsz": 64,
    "batch": 1,
    "nominal_batch": 4,
    "warmup_min_batches": 5,
    "threads": 1,
    "hyp": {"warmup_epochs": 1.0},
}
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Lab:
    """A running stack with a dataset and a model in it."""

    stack: RealStack
    dataset: str
    architecture: str

    def request(self, **config: Any) -> dict[str, Any]:
        return {"dataset": self.dataset, "architecture": self.architecture, "config": {**CONFIG, **config}}

    def submit(self, client: Client, **config: Any) -> Job:
        return client.submit(self.request(**config))

    def await_middle(self, job: Job, *, epoch: int = 1, attempt: int = 1) -> None:
        """Wait until the run is some batches into an epoch."""

        def is_there() -> bool:
            batches = [e for e in self.stack.journal(job.id, attempt) if e["type"] == "batch"]
            return bool(batches) and (batches[-1]["epoch"], batches[-1]["batch"]) > (epoch, 2)

        until(is_there, f"the middle of epoch {epoch}")

    def figures(self, client: Client, job: Job) -> dict[str, Any]:
        """Return how the delivered weights were judged."""
        found: dict[str, Any] = client.request("GET", f"/v1/jobs/{job.id}/artifacts/metrics.json").json()
        return found

    def tensors(self, client: Client, job: Job, folder: Path) -> Tensors:
        """Return all numbers a finished job left: delivered weights, and the state it could go on from."""
        found: Tensors = {}
        for artifact in client.artifacts(job.id):
            if artifact.name in ("best.pt", "last.pt"):
                path = client.download(job.id, artifact, folder / f"{job.id}-{artifact.name}")
                found |= flat(torch.load(path, weights_only=True)["model"], artifact.name)
        ((pointer,),) = self.stack.query("SELECT pointer FROM jobs WHERE id = ?", job.id)
        final = load_checkpoint(self.stack.folder / "jobs" / job.id / json.loads(pointer)["path"])
        for name in ("model", "ema", "optimizer", "gradients"):
            found |= flat(getattr(final, name), name)
        return found


def flat(value: Any, name: str) -> Tensors:
    """Return the tensors of nested dicts and lists under dotted names."""
    if isinstance(value, torch.Tensor):
        return {name: value}
    parts = value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else [])
    return {key: tensor for part, inner in parts for key, tensor in flat(inner, f"{name}.{part}").items()}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    root = tmp_path_factory.mktemp("chaos")
    write_shapes(root / "shapes", num_train=100, num_val=4)
    with zipfile.ZipFile(root / "shapes.zip", "w") as archive:
        for path in sorted((root / "shapes").rglob("*.*")):
            archive.write(path, path.relative_to(root / "shapes"))
    stack = RealStack(root / "data")
    try:
        print(f"up after {stack.ensure_up():.1f} s")
        with stack.client() as client:
            dataset = client.push_dataset(root / "shapes.zip", "shapes")
            assert client.wait_for_dataset(dataset.id, timeout_s=60).status == "ready"
            yield Lab(stack, dataset.id, client.push_architecture(TINY_MODEL, "tiny").id)
    finally:
        stack.end()


@pytest.fixture
def lab(running: Lab) -> Lab:
    running.stack.ensure_up()
    return running


@dataclass(frozen=True)
class Undisturbed:
    """What a run without any fault leaves."""

    rows: list[dict[str, Any]]
    figures: dict[str, Any]
    tensors: Tensors


@pytest.fixture(scope="module")
def undisturbed(running: Lab, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    running.stack.ensure_up()
    began = time.monotonic()
    with running.stack.client() as client:
        job = running.submit(client)
        assert client.wait_for_job(job.id, timeout_s=100).status == "succeeded"
        tensors = running.tensors(client, job, tmp_path_factory.mktemp("undisturbed"))
        assert {name.split(".")[0] for name in tensors} >= {"best", "last", "model", "ema", "optimizer"}
        print(f"undisturbed: {time.monotonic() - began:.1f} s, {len(tensors)} tensors to compare")
        return Undisturbed(client.metrics(job.id), running.figures(client, job), tensors)


def assert_as_undisturbed(
    lab: Lab, client: Client, job: Job, undisturbed: Undisturbed, folder: Path, *, attempts: int
) -> None:
    """See that a job ended well, with every epoch once, and with the figures and weights of a calm run."""
    ended = client.wait_for_job(job.id, timeout_s=60)
    assert (ended.status, ended.attempt) == ("succeeded", attempts), ended.error
    told = "SELECT epoch FROM epoch_metrics WHERE job_id = ? AND NOT superseded ORDER BY epoch"
    assert lab.stack.query(told, job.id) == [(epoch,) for epoch in range(EPOCHS)]
    figures = ("epoch", "train", "val", "map50", "map50_95", "fitness", "lr", "best")
    rows = client.metrics(job.id)
    assert [[row[name] for name in figures] for row in rows] == [
        [row[name] for name in figures] for row in undisturbed.rows
    ]
    assert lab.figures(client, job) == undisturbed.figures
    found = lab.tensors(client, job, folder)
    assert found.keys() == undisturbed.tensors.keys()
    assert [name for name in found if not torch.equal(found[name], undisturbed.tensors[name])] == []


def assert_told_whole(follower: Follower, lab: Lab, *, attempts: int) -> None:
    """See that a client was told every line of every journal, in order, and can show each epoch once."""
    told = follower.join()
    written = []
    for attempt in range(1, attempts + 1):
        numbers = [line["seq"] for line in lab.stack.journal(follower.job_id, attempt)]
        assert numbers == list(range(1, len(numbers) + 1))
        written += [(attempt, number) for number in numbers]
    assert [position(event) for event in told] == written
    epochs = [event.data["epoch"] for event in without_repeats(told) if event.type == "epoch"]
    assert epochs == list(range(EPOCHS))
    resumed = [event.data["attempt"] for event in told if event.type == "resume"]
    assert resumed == list(range(2, attempts + 1))


def await_next_attempt(lab: Lab, job: Job, since: float, *, what: str, target_s: float) -> str:
    """Wait until the job trains again as attempt 2; record how long that took, and return it in words.

    `target_s` is how soon it is promised to be queued again.
    """
    sql = "SELECT status, attempt FROM jobs WHERE id = ?"
    until(lambda: lab.stack.query(sql, job.id)[0] != ("running", 1), "the end of attempt 1")
    queued = time.monotonic() - since
    until(lambda: lab.stack.query(sql, job.id)[0] == ("running", 2), "the claim of attempt 2")
    claimed = time.monotonic() - since

    def trains_or_ended() -> bool:
        events = lab.stack.journal(job.id, 2)
        return any(e["type"] == "batch" for e in events) or lab.stack.query(sql, job.id)[0] != ("running", 2)

    until(trains_or_ended, "a batch of attempt 2")
    assert lab.stack.query(sql, job.id)[0] == ("running", 2)
    record(f"{what} killed: work queued again", queued, "s", target_s)
    record(f"{what} killed: trains again", time.monotonic() - since, "s")
    return (
        f"queued again after {queued:.1f} s, claimed after {claimed:.1f} s,"
        f" training after {time.monotonic() - since:.1f} s"
    )


def transitions(client: Client, job: Job) -> list[tuple[str, str]]:
    items = client.request("GET", f"/v1/jobs/{job.id}/transitions").json()["items"]
    return [(item["to"], item["reason"]) for item in items]


def test_a_killed_trainer_goes_on_from_its_checkpoint(
    lab: Lab, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    with lab.stack.client() as client:
        job = lab.submit(client)
        follower = Follower(lab.stack, job)
        lab.await_middle(job, epoch=0)
        trainer = lab.stack.trainer()
        lab.await_middle(job)
        since = time.monotonic()
        trainer.kill()
        print(f"trainer killed: {await_next_attempt(lab, job, since, what='trainer', target_s=5.0)}")
        *_, struck = (line for line in lab.stack.journal(job.id, 1) if line["type"] == "batch")
        print(f"it struck in epoch {struck['epoch']}, after batch {struck['batch']} of {struck['batches']}")
        assert_told_whole(follower, lab, attempts=2)
        assert_as_undisturbed(lab, client, job, undisturbed, tmp_path, attempts=2)
        assert ("queued", "retry after KILLED") in transitions(client, job)


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_its_job_goes_on(
    lab: Lab, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    with lab.stack.client() as client:
        job = lab.submit(client)
        follower = Follower(lab.stack, job)
        lab.await_middle(job, epoch=0)
        trainer, worker = lab.stack.trainer(), lab.stack.train_worker()
        lab.await_middle(job)
        since = time.monotonic()
        worker.kill()
        orphaned = until(lambda: not living([trainer]), "the end of the trainer", 3)
        record("real worker killed: its trainer gone", orphaned, "s", 1.0)
        print(f"worker killed: its trainer was gone after {orphaned:.2f} s")
        told = await_next_attempt(lab, job, since, what="real worker", target_s=LEASE_S + 5)
        print(f"worker killed: {told} (the lease is {LEASE_S:g} s)")
        assert_told_whole(follower, lab, attempts=2)
        assert_as_undisturbed(lab, client, job, undisturbed, tmp_path, attempts=2)
        assert ("queued", "retry after WORKER_LOST") in transitions(client, job)


def test_valkey_flushed_and_killed_loses_no_event(lab: Lab, undisturbed: Undisturbed, tmp_path: Path) -> None:
    key = "trainshed:events:"
    with lab.stack.client() as client:
        job = lab.submit(client)
        follower = Follower(lab.stack, job)
        lab.await_middle(job, epoch=0)
        with lab.stack.redis() as server:
            server.flushall()
            refilled = until(lambda: server.xlen(key + job.id) > 0, "the stream, written anew")
        lab.await_middle(job, epoch=1)
        since = time.monotonic()
        lab.stack.one("valkey-server", "--unixsocket").kill()
        back = until(lambda: "valkey is ready again" in lab.stack.output, "Valkey's return")

        before = lab.stack.journal(job.id, 1)[-1]["seq"]

        def is_shipped() -> bool:
            with lab.stack.redis() as server:
                newest = server.xrevrange(key + job.id, count=1)
            return bool(newest) and int(newest[0][0].split(b"-")[1]) >= before

        until(is_shipped, "events in the new Valkey")
        print(
            f"stream refilled {refilled:.2f} s after FLUSHALL; Valkey back {back:.1f} s after its kill,"
            f" events of that moment in it after {time.monotonic() - since:.1f} s"
        )
        assert_told_whole(follower, lab, attempts=1)
        assert_as_undisturbed(lab, client, job, undisturbed, tmp_path, attempts=1)


def test_a_pipeline_waits_for_a_worker_and_learns_of_the_cancel(lab: Lab, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**CONFIG, "epochs": 1000}))
    submit = ["jobs", "submit", "-d", lab.dataset, "-m", lab.architecture, "--config", str(config), "--wait"]
    command = [sys.executable, "-m", "api.cli.main", "--data", str(lab.stack.folder), *submit]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRAINSHED_")}
    worker = lab.stack.train_worker()
    worker.suspend()
    pipeline = subprocess.Popen(
        command, cwd=ROOT, env=kept, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        with lab.stack.client() as client:
            until(lambda: any(not job.is_final for job in client.jobs()), "the job")
            job = next(job for job in client.jobs() if not job.is_final)

            def reason() -> str | None:
                found: str | None = client.job(job.id).as_json()["waiting_reason"]
                return found

            assert reason() in ("waiting_for_worker", "no_worker")
            alone = until(lambda: reason() == "no_worker", "the absence of a worker to be told")
            worker.resume()
            lab.await_middle(job, epoch=0)
            assert reason() is None
            trainer = lab.stack.trainer()
            client.cancel(job.id)
            final = until(lambda: client.job(job.id).is_final, "the end of a cancelled job", 5)
            assert client.job(job.id).status == "cancelled" and living([trainer]) == []
            told = until(lambda: pipeline.poll() is not None, "the end of the waiting command", 10)
        print(
            f"no_worker told after {alone:.1f} s; cancelled after {final:.2f} s, pipeline {told:.2f} s later"
        )
    finally:
        worker.resume()
        pipeline.kill()
        output, _ = pipeline.communicate()
    assert pipeline.returncode == 4, output
    assert "waiting_for_worker" in output or "no_worker" in output, output


def test_a_paused_job_that_is_stopped_delivers_its_best(lab: Lab, tmp_path: Path) -> None:
    with lab.stack.client() as client:
        job = lab.submit(client, epochs=1000)
        lab.await_middle(job, epoch=0)
        lab.await_middle(job)
        client.pause(job.id)
        until(lambda: client.job(job.id).status == "paused", "the pause")
        assert client.artifacts(job.id) and not weights_of(client, job)
        best = client.job(job.id).as_json()["best"]["epoch"]
        since = time.monotonic()
        told = client.stop(job.id)
        assert (told.status, told.wish) == ("queued", "stop")
        ended = client.wait_for_job(job.id, timeout_s=60)
        record("paused real job stopped: weights stored", time.monotonic() - since, "s")
        assert (ended.status, ended.attempt) == ("succeeded", 2), ended.error
        assert ended.as_json()["best"]["epoch"] >= best
        (found,) = weights_of(client, job)
        kept = torch.load(client.download(job.id, found, tmp_path / "best.pt"), weights_only=True)
        assert flat(kept["model"], "model")


def weights_of(client: Client, job: Job) -> list[Artifact]:
    return [found for found in client.artifacts(job.id) if found.name == "best.pt"]


def batches_behind(lab: Lab, job: Job) -> int:
    """Return how many told batches of attempt 1 its last checkpoint does not hold."""
    journal = lab.stack.journal(job.id, 1)
    saved = [event for event in journal if event["type"] == "checkpoint"][-1]
    told = [event for event in journal if event["type"] == "batch"][-1]
    # A checkpoint names the batch that comes next.
    place = saved["epoch"] * told["batches"] + saved["batch"]
    return max(0, told["epoch"] * told["batches"] + told["batch"] + 1 - place)


@pytest.mark.slow
def test_a_worker_told_to_end_hands_over_real_training(
    lab: Lab, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    with lab.stack.client() as client:
        job = lab.submit(client)
        follower = Follower(lab.stack, job)
        lab.await_middle(job, epoch=0)
        trainer, worker = lab.stack.trainer(), lab.stack.train_worker()
        lab.await_middle(job)
        since = time.monotonic()
        worker.terminate()
        until(lambda: not living([trainer, worker]), "the end of the worker", 20)
        record("real worker told to end: it has ended", time.monotonic() - since, "s")
        record("real worker told to end: the checkpoint is old", batches_behind(lab, job), "batches", 1)
        assert batches_behind(lab, job) <= 1
        assert_told_whole(follower, lab, attempts=2)
        assert_as_undisturbed(lab, client, job, undisturbed, tmp_path, attempts=2)
        assert ("queued", "drained") in transitions(client, job)
        assert client.job(job.id).as_json()["failures"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_stopped_stack_checkpoints_and_the_next_start_goes_on(
    lab: Lab, undisturbed: Undisturbed, tmp_path: Path, how: signal.Signals
) -> None:
    with lab.stack.client() as client:
        job = lab.submit(client)
    lab.await_middle(job, epoch=0)
    family = lab.stack.family()
    lab.await_middle(job)
    since = time.monotonic()
    lab.stack.process.send_signal(how)
    until(lambda: lab.stack.process.poll() is not None, "the end of the stack", 20)
    record(f"real stack, {how.name}: all has ended", time.monotonic() - since, "s", 10.0)
    assert lab.stack.process.returncode == 0 and living(family) == [], lab.stack.output
    sql = "SELECT status, failures, preemptions, pointer FROM jobs WHERE id = ?"
    ((status, failures, preemptions, pointer),) = lab.stack.query(sql, job.id)
    assert (status, failures, preemptions) == ("queued", 0, 1)
    saved = [event for event in lab.stack.journal(job.id, 1) if event["type"] == "checkpoint"][-1]
    place = json.loads(pointer)
    assert (place["epoch"], place["batch"]) == (saved["epoch"], saved["batch"])
    assert (lab.stack.attempt_folder(job.id, 1) / saved["path"]).is_file()
    record(f"real stack, {how.name}: the checkpoint is old", batches_behind(lab, job), "batches", 1)
    assert batches_behind(lab, job) <= 1
    lab.stack.ensure_up()
    with lab.stack.client() as client:
        follower = Follower(lab.stack, job)
        assert_told_whole(follower, lab, attempts=2)
        assert_as_undisturbed(lab, client, job, undisturbed, tmp_path, attempts=2)
        assert client.job(job.id).as_json()["failures"] == 0


def test_a_second_interrupt_kills_the_whole_tree(lab: Lab) -> None:
    with lab.stack.client() as client:
        job = lab.submit(client, epochs=1000)
    lab.await_middle(job, epoch=0)
    family = lab.stack.family()
    # A trainer that answers nothing: only a kill can end the stop before its grace is over.
    lab.stack.trainer().suspend()
    interrupt(lab.stack.process)
    until(lambda: "a second Ctrl-C kills" in lab.stack.output, "the polite stop")
    assert lab.stack.process.poll() is None
    interrupt(lab.stack.process)
    killed = until(lambda: lab.stack.process.poll() is not None, "the end of the stack", 5)
    print(f"second Ctrl-C: {len(family)} processes gone after {killed:.2f} s")
    assert living(family) == [], lab.stack.output
    assert mentioning(str(lab.stack.folder)) == []
    assert lab.stack.query("PRAGMA integrity_check") == [("ok",)]


def mentioning(text: str) -> list[list[str]]:
    """Return the command lines that speak of a folder, this process's own aside."""
    lines = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline", "pid"])]
    return [line for line in lines if any(text in word for word in line)]
