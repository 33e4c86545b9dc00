"""Checkpoints that the reference wrote: the same tensors by the same keys, and the same boxes from them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.fidelity.harness import Case, assert_close, cases, uniform
from yolocore.model.build import build_network
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.plan import plan_architecture
from yolocore.weights.read import ForeignWeights, read_weights
from yolocore.weights.transfer import transfer

SUM = 1e-6
OUTPUT = 3e-7  # the two entries differ by 6e-7


def sums(weights: ForeignWeights) -> list[float]:
    return [float(tensor.double().sum()) for tensor in weights.tensors.values()]


def decoded(case: Case, weights: ForeignWeights) -> torch.Tensor:
    arch = parse_architecture((case.path.parent.parent / "tiny.yaml").read_text())
    network = build_network(plan_architecture(arch, num_classes=weights.num_classes))
    report = transfer(network, weights.tensors, keep_anchors=False)
    assert report.loaded == report.total and not report.left_out
    images = torch.from_numpy(uniform("ckpt:input", 3 * 64 * 64).reshape(1, 3, 64, 64)).float()
    with torch.no_grad():
        boxes: torch.Tensor = network.eval()(images)[0]
    return boxes.double()


@pytest.mark.parametrize("case", cases("checkpoint"), ids=str)
@pytest.mark.parametrize("kind", ["full", "stripped"])
def test_checkpoints_of_the_reference(case: Case, kind: str) -> None:
    expected: dict[str, Any] = case.document[kind]
    path = case.path.parent / f"tiny_{kind}.pt"
    model = read_weights(path, entry="model")
    assert [[key, list(tensor.shape)] for key, tensor in model.tensors.items()] == [
        entry[:2] for entry in expected["state_dict"]
    ]
    assert_close(sums(model), expected["state_dict_sum"], SUM, "model")
    assert list(model.strides) == expected["stride"]
    assert list(model.names) == list(expected["names"].values())
    assert model.epoch == expected["top_level"]["epoch"]["value"]
    assert model.yaml is not None and sorted(model.yaml) == expected["yaml_keys"]
    assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in model.tensors.values())

    averaged = read_weights(path)
    assert averaged.entry == ("ema" if expected["ema_state_dict_sum"] else "model")
    if expected["ema_state_dict_sum"]:
        assert_close(sums(averaged), expected["ema_state_dict_sum"], SUM, "ema")
    boxes = [decoded(case, weights) for weights in (model, averaged)]
    found = [[float(x.sum()), float(x.norm())] for x in boxes]
    wanted = expected["eval_output_sum_l2"]
    assert_close(found[0], wanted, OUTPUT, "decoded")
