"""What maps take: training against the tensors autograd keeps, inference against a walk by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from yolocore.model.build import assemble
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.memory import memory_of
from yolocore.spec.plan import Plan, plan_architecture
from yolocore.spec.zoo import zoo_text


def kept_bytes(plan: Plan, batch: int) -> int:
    """Return the bytes autograd keeps after one forward, each storage once, parameters aside."""
    network = assemble(plan).train()
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in own:
            kept[address] = tensor  # held, so that no other storage gets its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = network(torch.zeros(batch, 3, *plan.imgsz))
    assert out
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize(
    "name",
    ["yolov5n", "hub/yolov3-tiny", "hub/yolov5s-ghost", "hub/yolov5s-transformer", "segment/yolov5n-seg"],
)
def test_training_memory_is_what_autograd_keeps(name: str) -> None:
    plan = plan_architecture(parse_architecture(zoo_text(name)), imgsz=(128, 128))
    memory = memory_of(plan, batch=2)
    assert memory.training_bytes == pytest.approx(kept_bytes(plan, 2), rel=0.04)
    assert memory.training_bytes == 2 * plan.activation_bytes == sum(memory.row_training_bytes)


def test_inference_memory_is_the_peak_of_the_rows_alive() -> None:
    text = """
nc: 1
anchors: 1
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [8, 3, 1]]
  - [-1, 1, Conv, [8, 3, 1]]
head:
  - [[-1, 0], 1, Concat, [1]]
  - [[-1], 1, Detect, [nc, anchors]]
"""
    memory = memory_of(plan_architecture(parse_architecture(text), imgsz=(64, 64)), batch=3)
    row, picture = 8 * 32 * 32, 3 * 64 * 64
    values = [picture + row, 2 * row, 3 * row, 4 * row, 2 * row + 6 * 32 * 32]
    assert memory.alive_bytes == tuple(4 * 3 * value for value in values)
    assert (memory.inference_bytes, memory.peak_row) == (4 * 3 * 4 * row, 3)
