"""One small job on a stack that really trains: what a calm run leaves, and a struck one must equal."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from api.client import Artifact, Client, Job
from tests.chaos.real_stack import Follower, RealStack, position, until, without_repeats
from tests.support.figures import record
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


@dataclass(frozen=True)
class Undisturbed:
    """What a run without any fault leaves."""

    rows: list[dict[str, Any]]
    figures: dict[str, Any]
    tensors: Tensors


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
