"""The loop where numbers leave the range: what a scaler may mend, and what must not be kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.loops import CPU, ListLoader, NoOutput, batch_of, build_trainer
from tests.support.overflows import Steep
from tests.support.shapes import TINY_MODEL, draw_shapes
from yolocore.data.collate import Item
from yolocore.errors import NonFiniteError
from yolocore.loss.detection import DetectionLoss
from yolocore.model.build import build_network
from yolocore.model.network import Network
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.events import TrainEvent
from yolocore.spec.plan import plan_architecture
from yolocore.train.checkpoint import Snapshot
from yolocore.train.optim import build_optimizer
from yolocore.train.precision import Precision, PrecisionName
from yolocore.train.schedule import Point
from yolocore.train.trainer import Trainer

NUM_BATCHES = 4
Spoil = Callable[[Tensor], Tensor]


class GentleRates:
    def at(self, counter: int) -> Point:
        return Point((0.001, 0.001, 0.001), 0.9, 1)


def too_large(value: Tensor) -> Tensor:
    return value * 1e9


def untouched(value: Tensor) -> Tensor:
    return value


def trainer_with(precision: PrecisionName, spoil: Spoil, **parts: Any) -> Trainer:
    """Return a trainer of four batches whose second one is spoilt on the way forward, in training only."""
    network = build_network(plan_architecture(parse_architecture(TINY_MODEL), num_classes=2))
    rng = np.random.default_rng(0)
    items = []
    for number in range(NUM_BATCHES * 2):
        image, rows = draw_shapes(rng, 64)
        items.append(Item(image, np.array(rows, dtype=np.float32), f"{number}.png"))
    batches = [
        batch_of(items[2 * index : 2 * index + 2], network, 4.0, index=index) for index in range(NUM_BATCHES)
    ]
    _spoil_second(network, spoil)
    return build_trainer(
        network,
        optimizer=build_optimizer(network, name="SGD", lr=0.001, momentum=0.9, weight_decay=0),
        schedule=GentleRates(),
        loss=DetectionLoss(num_classes=2, strides=network.strides.tolist(), box=0.05, obj=1.0, cls=0.5),
        loader=ListLoader(batches),
        batches_per_epoch=NUM_BATCHES,
        precision=Precision(precision, CPU),
        **parts,
    )


def _spoil_second(network: Network, spoil: Spoil) -> None:
    seen = 0

    def hook(module: torch.nn.Module, inputs: Any, output: Tensor) -> Tensor:
        nonlocal seen
        seen += module.training
        return spoil(output) if module.training and seen == 2 else output

    network.model[2].register_forward_hook(hook)


class FiniteOutput(NoOutput):
    """Refuses what a later run would be poisoned with; a snapshot is of the living tensors."""

    def checkpoint(self, snapshot: Snapshot) -> None:
        super().checkpoint(snapshot)
        for tensors in (snapshot.model, snapshot.ema):
            assert all(bool(torch.isfinite(value).all()) for value in tensors.values())


@pytest.mark.parametrize("checkpoint_every_s", [0.0, float("inf")])
def test_an_overflow_on_the_way_forward_is_never_kept(checkpoint_every_s: float) -> None:
    output = FiniteOutput()
    parts: dict[str, Any] = {"checkpoint_every_s": checkpoint_every_s, "remember_every": 0}
    trainer = trainer_with("fp16", too_large, output=output, **parts)
    with pytest.raises(NonFiniteError) as caught:
        trainer.run()
    assert caught.value.place == "epoch 1, batch 2"
    assert caught.value.value == "2.png, 3.png"
    assert not output.rows


def test_an_overflow_of_gradients_alone_is_the_scalers_business() -> None:
    scales: list[float] = []
    for spoil in (untouched, Steep.apply):
        events: list[TrainEvent] = []
        output = FiniteOutput()
        trainer = trainer_with("fp16", spoil, output=output, emit=events.append)
        assert trainer.run() is None and len(output.rows) == 1
        scales.append(trainer.precision.scale or 0.0)
    assert scales[1] == scales[0] / 2
    assert any("has skipped" in event.message for event in events if event.type == "log")


def test_an_average_that_is_not_finite_is_refused_wherever_it_came_from() -> None:
    output = NoOutput()
    trainer = trainer_with("fp32", untouched, output=output)
    trainer.ema.network.state_dict()["model.0.bn.running_var"][0] = torch.inf
    with pytest.raises(NonFiniteError, match="averaged"):
        trainer.run()
    assert not output.rows and not output.snapshots
