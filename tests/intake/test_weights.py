"""Every collected checkpoint, sent to the real service: API, queue, ingest slot, limited child.

Each is decided as its manifest says by what a client is told, whatever the folder holds, and none has run
anything. What the codes are in detail is held by the neighbouring file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from api.cli.main import app
from api.client import ApiError, Weights
from api.domain.blobs import BlobStore
from tests.chaos.sim_stack import SimStack
from tests.intake.test_checkpoints import CASES
from tests.intake.test_service import canaries
from tests.support.shared import intake_dir, weights_dir
from yolocore.spec.zoo import zoo_text
from yolocore.weights.read import read_weights

PATIENCE_S = 240.0
pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True)
class Verdict:
    """What a client was told of a file: refused at once, or weights with their report."""

    refusal: ApiError | None = None
    weights: Weights | None = None
    fit: dict[str, Any] | None = None

    @property
    def problems(self) -> list[dict[str, Any]]:
        return [] if self.weights is None else list((self.weights.report or {})["problems"])


@dataclass(frozen=True)
class Shed:
    """A running service, the verdicts that come in one after the other, and what lay about before."""

    stack: SimStack
    verdicts: dict[str, Future[Verdict]]
    canaries: set[Path]


@pytest.fixture(scope="module")
def shed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shed]:
    before = canaries()
    with (
        SimStack(tmp_path_factory.mktemp("weights") / "data", workers=1, ingest=True) as stack,
        ThreadPoolExecutor(2) as pool,
    ):
        coming = {case["file"]: pool.submit(send, stack, case["file"]) for case in CASES}
        try:
            yield Shed(stack, coming, before)
        finally:
            pool.shutdown(cancel_futures=True)


def send(stack: SimStack, name: str) -> Verdict:
    """Upload a checkpoint, wait for the verdict, and hold it against the smallest public network."""
    with stack.client() as client:
        try:
            sent = client.push_weights(intake_dir() / "checkpoints" / name, f"case {name}")
        except ApiError as refusal:
            return Verdict(refusal)
        found = client.wait_for_weights(sent.id, timeout_s=PATIENCE_S)
        assert found.error is None, "errors of the data are not the service's"
        return Verdict(
            None, found, client.weights_fit(sent.id, "yolov5n") if found.status == "ready" else None
        )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["file"])
def test_a_checkpoint_is_decided_over_http(shed: Shed, case: dict[str, Any]) -> None:
    verdict = shed.verdicts[case["file"]].result(PATIENCE_S)
    decision = case["expect"].split()[0].strip(",:")
    if verdict.refusal is not None:
        assert decision == "reject"
        assert 400 <= verdict.refusal.status < 500 and verdict.refusal.code.startswith("CHECKPOINT_")
        assert "LFS" not in case["expect"] or "LFS pointer" in str(verdict.refusal)
        return
    assert verdict.weights is not None
    if decision == "reject" and "or load" not in case["expect"]:
        assert verdict.weights.status == "invalid"
        assert [problem["severity"] for problem in verdict.problems] == ["error"]
    else:
        assert verdict.weights.status == "ready" and verdict.fit is not None
        assert verdict.fit["left_out"], "what is missing or left out must be said"
    reasons = {item["reason"] for item in (verdict.fit or {"left_out": []})["left_out"]}
    if decision == "warn":
        assert any(problem["severity"] == "warning" for problem in verdict.problems)
        assert "not finite" in reasons
    if decision == "skip":
        assert "shape" in reasons
    assert all(problem["code"] and problem["message"] for problem in verdict.problems)


def trainshed(stack: SimStack, *arguments: str) -> Result:
    """Run the command line against a stack."""
    return CliRunner().invoke(app, ["--url", stack.url(), "--token", stack.token, *arguments])


def test_published_weights_are_pushed_shown_and_started_from(shed: Shed) -> None:
    stack, file = shed.stack, weights_dir() / "yolov5n.pt"
    pushed = trainshed(stack, "weights", "push", str(file), "--json")
    assert pushed.exit_code == 0, pushed.output
    found = json.loads(pushed.stdout)
    assert (found["status"], found["num_classes"], found["file_name"]) == ("ready", 80, "yolov5n.pt")
    assert found["provenance"]["sha256"] == found["sha256"] and found["provenance"]["date"]
    assert found["name"] in trainshed(stack, "weights", "list").stdout
    shown = trainshed(stack, "weights", "show", "yolov5n", "-m", "yolov5n")
    assert "takes 348 of 349 tensors" in shown.stdout
    with stack.client() as client:
        request = stack.request(epochs=1)
        with pytest.raises(ApiError) as refused:
            client.submit({**request, "weights": "yolov5n"})
        assert (refused.value.status, refused.value.code) == (422, "WEIGHTS_DO_NOT_FIT")
        request["architecture"] = client.push_architecture(zoo_text("yolov5n"), "yolov5n").id
        job = client.submit({**request, "weights": "yolov5n"})
        assert client.wait_for_job(job.id, timeout_s=PATIENCE_S).status == "succeeded"
    told = json.loads((stack.attempt_folder(job.id, 1) / "config.json").read_text())
    content = torch.load(told["weights"], weights_only=True)
    assert content["format"] == "trainshed-weights-1" and json.loads(content["provenance"])
    stored = BlobStore(stack.settings.blobs_dir).path(found["stored_sha256"])
    assert stored.samefile(told["weights"])
    before, after = read_weights(file), read_weights(stored)
    assert before.names == after.names and before.strides == after.strides
    assert before.tensors.keys() == after.tensors.keys()
    assert all(value.equal(after.tensors[key]) for key, value in before.tensors.items())


def test_no_canary_exists_and_nothing_is_left_of_the_imports(shed: Shed) -> None:
    for verdict in shed.verdicts.values():
        verdict.result(PATIENCE_S)
    assert canaries() == shed.canaries
    left = [path for path in shed.stack.settings.tasks_dir.rglob("*") if path.is_file()]
    assert left == []
