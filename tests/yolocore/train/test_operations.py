"""What one step asks of the device: how many operations, and none whose answer the host would wait for.

Counted on the CPU by looking at every call torch dispatches. Views cost no kernel and are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.counting import WAITING, Counting
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
