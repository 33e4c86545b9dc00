"""What one step asks of the device: how many operations, and none whose answer the host would wait for.

Counted on the CPU by looking at every call torch dispatches. Views cost no kernel and are not counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.loops import CPU, ListLoader, batch_of, build_trainer
from tests.support.shapes import draw_shapes
from yolocore.data.collate import Batch, Item
from yolocore.loss.detection import DetectionLoss
from yolocore.model.build import build_network
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.plan import plan_architecture
from yolocore.spec.zoo import zoo_text
from yolocore.train.optim import build_optimizer
from yolocore.train.precision import Precision, PrecisionName
from yolocore.train.schedule import Point
from yolocore.train.trainer import Trainer

LIMIT = 775
VIEWS = {
    "alias", "as_strided", "detach", "expand", "permute", "select", "slice", "split", "split_with_sizes",
    "squeeze", "t", "transpose", "unbind", "unsqueeze", "view", "_unsafe_view", "_reshape_alias", "reshape",
    "lift_fresh", "_record_function_enter_new", "_record_function_exit",
}  # fmt: skip
# The host waits for these on CUDA: a value read, or a shape that depends on values.
WAITING = {
    "_local_scalar_dense", "item", "nonzero", "nonzero_numpy", "masked_select", "is_nonzero", "equal",
    "unique", "_unique2", "unique_dim", "unique_consecutive", "where.self", "argwhere", "repeat_interleave",
}  # fmt: skip


class Counting(TorchDispatchMode):
    """Counts the operations called inside, and keeps those that index by a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.masked: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        self.calls[name] += 1
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
            self.masked += [name] * bool(masks)
        return func(*args, **(kwargs or {}))

    @property
    def kernels(self) -> int:
        """How many calls would start work on the device."""
        return sum(count for name, count in self.calls.items() if name not in VIEWS)


class EveryBatch:
    def at(self, counter: int) -> Point:
        return Point((0.001, 0.001, 0.001), 0.9, 1)


def trainer_and_batches(model: str, precision: PrecisionName) -> tuple[Trainer, Iterator[Batch]]:
    plan = plan_architecture(parse_architecture(zoo_text(model)), num_classes=3)
    network = build_network(plan, seed=0).to(memory_format=torch.channels_last).train()
    rng = np.random.default_rng(0)
    items = []
    for number in range(2):
        image, rows = draw_shapes(rng, 64)
        items.append(Item(image, np.array(rows, dtype=np.float32), f"{number}.png"))
    batches = [batch_of(items, network, 4.0, index=index) for index in range(3)]
    trainer = build_trainer(
        network,
        optimizer=build_optimizer(network, name="SGD", lr=0.001, momentum=0.9, weight_decay=0.0005),
        schedule=EveryBatch(),
        loss=DetectionLoss(num_classes=3, strides=network.strides.tolist(), box=0.05, obj=1.0, cls=0.5),
        loader=ListLoader(batches),
        batches_per_epoch=len(batches),
        precision=Precision(precision, CPU),
    )
    return trainer, iter(batches)


def counted(model: str, precision: PrecisionName) -> Counting:
    """Count the second step: the first one makes what later ones keep."""
    trainer, batches = trainer_and_batches(model, precision)
    trainer.train_batch(next(batches))
    batch = next(batches)
    with Counting() as counting:
        trainer.train_batch(batch)
    return counting


@pytest.mark.parametrize("model", ["yolov5n", "yolov5s"])
def test_operations_of_a_step(model: str) -> None:
    counting = counted(model, "fp32")
    assert counting.calls["convolution"] == counting.calls["convolution_backward"] == 60
    print(f"{model}: {counting.kernels} operations, {sum(counting.calls.values())} with views")
    assert counting.kernels <= LIMIT


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_waits_for_no_value(precision: PrecisionName) -> None:
    counting = counted("yolov5n", precision)
    assert not WAITING & set(counting.calls), counting.calls
    assert not counting.masked


@pytest.mark.parametrize(
    "wait",
    [
        lambda values: float(values.sum()),
        lambda values: values[values > 0],
        lambda values: values.nonzero(),
        lambda values: values.masked_select(values > 0),
    ],
)
def test_waiting_would_be_seen(wait: Callable[[torch.Tensor], Any]) -> None:
    values = torch.ones(3)
    counting: Any = Counting()
    held: AbstractContextManager[Any] = counting
    with held:
        wait(values)
    assert counting.masked or WAITING & set(counting.calls)
