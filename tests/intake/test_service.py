"""Every collected archive and model YAML, sent to the real service: API, queue, ingest worker, limited child.

What the verdicts are in detail is held by the neighbouring files. Here each case is decided as its manifest
says by what a client is told, whatever the folder holds, and at the end no archive has run anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from api.client import ApiError
from tests.chaos.sim_stack import SimStack
from tests.intake.test_archives import DECIDED_OTHERWISE, DROPPED_WITH_ENTRY
from tests.support.shared import folder, intake_dir

# A test waits for all that was sent before its own.
PATIENCE_S = 400.0
pytestmark = pytest.mark.timeout(450)
INGEST = "ingest-0"


def cases(kind: str) -> list[Any]:
    """Return the cases of a sub-folder as parameters."""
    root = folder("TRAINSHED_INTAKE", "intake")
    if root is None:
        return [pytest.param(None, id="absent")]
    manifest = json.loads((root / kind / "manifest.json").read_text(encoding="utf-8"))
    return [pytest.param(case, id=case["id"]) for case in manifest["cases"]]


def canaries() -> set[Path]:
    return set(Path("/tmp").glob("pwned*"))


@dataclass(frozen=True)
class Verdict:
    """What a client was told of an upload: refused at once, or a dataset with its report."""

    refusal: ApiError | None = None
    status: str = "refused"
    problems: tuple[dict[str, Any], ...] = ()

    @property
    def serious(self) -> list[dict[str, Any]]:
        return [problem for problem in self.problems if problem["severity"] in ("error", "warning")]


@dataclass(frozen=True)
class Shed:
    """A running service, and the verdicts that come in one after the other."""

    stack: SimStack
    verdicts: dict[str, Future[Verdict]]
    canaries: set[Path]


@pytest.fixture(scope="module")
def shed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shed]:
    archives = intake_dir() / "archives"
    wanted = [case.values[0] for case in cases("archives")]
    before = canaries()
    # Two at a time: one comes in while the other is looked into.
    with (
        SimStack(tmp_path_factory.mktemp("intake") / "data", workers=0, ingest=True) as stack,
        ThreadPoolExecutor(2) as pool,
    ):
        coming = {case["id"]: pool.submit(send(stack, archives, case)) for case in wanted}
        try:
            yield Shed(stack, coming, before)
        finally:
            pool.shutdown(cancel_futures=True)


def send(stack: SimStack, archives: Path, case: dict[str, Any]) -> Callable[[], Verdict]:
    """Return what uploads an archive and waits for the verdict."""

    def run() -> Verdict:
        with stack.client() as client:
            try:
                dataset = client.push_dataset(archives / case["file"], f"case {case['id']}")
            except ApiError as refusal:
                return Verdict(refusal)
            ended = client.wait_for_dataset(dataset.id, timeout_s=PATIENCE_S)
            found = client.request("GET", f"/v1/datasets/{dataset.id}/problems").json()
            assert ended.as_json()["error"] is None, "errors of the data are not the service's"
            return Verdict(None, ended.status, tuple(found["items"]))

    return run


@pytest.mark.parametrize("case", cases("archives"))
def test_an_archive_is_decided_over_http(shed: Shed, case: dict[str, Any] | None) -> None:
    assert case is not None
    verdict = shed.verdicts[case["id"]].result(PATIENCE_S)
    decision = DECIDED_OTHERWISE.get(case["id"], (case["decision"],))[0]
    assert shed.stack.members[INGEST].is_alive
    if verdict.refusal is not None:
        assert decision in ("reject", "either", "accept_warn")
        assert 400 <= verdict.refusal.status < 500 and verdict.refusal.code
    elif decision in ("accept", "accept_warn"):
        assert verdict.status == "ready", verdict.problems
        assert verdict.serious or decision == "accept", "what was mended or ignored must be said"
    elif decision == "reject" and case["id"] not in DROPPED_WITH_ENTRY and "dropped" not in case["expect"]:
        assert verdict.status == "invalid"
        assert any(problem["severity"] == "error" for problem in verdict.problems)
    else:
        assert verdict.status == "ready" or verdict.serious
    assert all(problem["code"] and problem["message"] for problem in verdict.problems)


@pytest.mark.parametrize("case", cases("model_yaml"))
def test_a_model_yaml_is_decided_over_http(shed: Shed, case: dict[str, Any] | None) -> None:
    assert case is not None
    with shed.stack.client() as client:
        try:
            client.request(
                "POST",
                "/v1/architectures",
                params={"name": case["id"]},
                headers={"Content-Type": "application/yaml"},
                content=(intake_dir() / "model_yaml" / case["file"]).read_bytes(),
            )
        except ApiError as refusal:
            assert case["decision"] != "accept", refusal
            assert 400 <= refusal.status < 500 and refusal.code
        else:
            assert case["decision"] != "reject"
    assert shed.stack.members["api-0"].is_alive


def test_no_canary_exists_and_nothing_is_left_of_the_ingests(shed: Shed) -> None:
    for verdict in shed.verdicts.values():
        verdict.result(PATIENCE_S)
    assert canaries() == shed.canaries
    assert not shed.stack.children()
    left = [path for path in shed.stack.settings.tasks_dir.rglob("*") if path.is_file()]
    assert left == []
