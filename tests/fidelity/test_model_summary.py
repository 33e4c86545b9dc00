"""Every public model file: plan against the recorded figures, and plan against the built network."""

from __future__ import annotations

import json
import time
import zlib
from typing import Any

import pytest
import torch

from tests.fidelity.harness import golden_folder
from yolocore.model.build import assemble
from yolocore.model.fuse import fuse
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.plan import Plan, plan_architecture
from yolocore.spec.zoo import ZOO, zoo_text

FOLDER = golden_folder()
SUMMARY: list[dict[str, Any]] = json.loads((FOLDER / "model_summary.json").read_text()) if FOLDER else []


def plan_of(name: str) -> Plan:
    return plan_architecture(parse_architecture(zoo_text(name), source=name))


def test_zoo_holds_exactly_the_public_files() -> None:
    assert sorted(f"{name}.yaml" for name in ZOO) == sorted(model["file"] for model in SUMMARY)


@pytest.mark.parametrize("model", SUMMARY, ids=lambda model: model["file"])
def test_plan_equals_the_recorded_figures(model: dict[str, Any]) -> None:
    plan = plan_of(model["file"])
    assert plan.num_parameters == model["params"]
    assert [layer.num_parameters for layer in plan.layers] == model["layer_params"]
    assert plan.gflops == pytest.approx(model["gflops"], rel=1e-12)
    assert list(plan.strides) == model["stride"]
    assert list(plan.save) == model["save"]
    assert len(plan.layers) == model["rows"]
    lines = "\n".join(f"{key} {list(shape)}" for key, shape in plan.state_entries)
    assert (len(plan.state_entries), zlib.crc32(lines.encode())) == (model["n_state"], model["state_crc32"])
    grid = [
        [[w / stride, h / stride] for w, h in level]
        for level, stride in zip(plan.anchors_px, plan.strides, strict=True)
    ]
    assert grid == model["anchors_grid"]
    assert not plan.warnings


@pytest.mark.parametrize("model", SUMMARY, ids=lambda model: model["file"])
def test_network_equals_its_plan(model: dict[str, Any]) -> None:
    plan = plan_of(model["file"])
    with torch.device("meta"):
        network = assemble(plan)
    built = [(key, tuple(value.shape)) for key, value in network.state_dict().items()]
    assert built == list(plan.state_entries)
    sizes = [sum(p.numel() for p in row.parameters()) for row in network.model]
    assert sizes == [layer.num_parameters for layer in plan.layers]


@pytest.mark.parametrize("name", ["yolov5n", "hub/yolov5s-ghost", "segment/yolov5n-seg"])
def test_folding_leaves_the_recorded_parameters(name: str) -> None:
    model = next(model for model in SUMMARY if model["file"] == f"{name}.yaml")
    assert sum(p.numel() for p in fuse(assemble(plan_of(name))).parameters()) == model["fused_params"]


def test_the_largest_file_is_planned_in_no_time() -> None:
    """The target is 50 ms; the watchdog stands at five times that."""
    texts = [zoo_text(name) for name in ("hub/yolov5-p7", "hub/yolov5x6")]
    best = min(_seconds(text) for text in texts for _ in range(3))
    assert best < 0.25


def _seconds(text: str) -> float:
    start = time.perf_counter()
    plan_architecture(parse_architecture(text))
    return time.perf_counter() - start
