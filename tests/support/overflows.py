"""A small run whose batches overflow as told, for tests of what a run in reduced precision does about it.

The faults follow from a mark in the pictures and from the precision alone, as real overflows do, so that
they come again when a batch is repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.support.loops import CPU, ListLoader, NoOutput, batch_of, build_trainer
from tests.support.shapes import TINY_MODEL, draw_shapes
from yolocore.data.collate import Batch, Item
from yolocore.loss.detection import DetectionLoss
from yolocore.model.build import build_network
from yolocore.model.network import Network
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.events import TrainEvent, Warned
from yolocore.spec.plan import plan_architecture
from yolocore.train.checkpoint import Snapshot, encode, load_checkpoint
from yolocore.train.optim import build_optimizer
from yolocore.train.precision import Precision, PrecisionName
from yolocore.train.protocols import Wish
from yolocore.train.schedule import Point
from yolocore.train.trainer import Trainer

NUM_BATCHES = 8
CONV = "model.3.conv"
Fault = Callable[[Tensor], Tensor]


class Steep(torch.autograd.Function):
    """Leaves a value as it is and makes its gradient infinite."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * torch.inf


def steep(value: Tensor) -> Tensor:
    steeper: Tensor = Steep.apply(value)
    return steeper


def loud(value: Tensor) -> Tensor:
    return value * 1e38 * 1e38


class Rates:
    def __init__(self, accumulate: int) -> None:
        self.accumulate = accumulate

    def at(self, counter: int) -> Point:
        return Point((0.001, 0.001, 0.001), 0.9, self.accumulate)


class KeepingOutput(NoOutput):
    """Keeps copies of what would have been written, as files do; all of it must be finite."""

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__()
        self.files: list[bytes] = []

    def checkpoint(self, snapshot: Snapshot) -> None:
        for tensors in (snapshot.model, snapshot.ema):
            assert all(bool(torch.isfinite(value).all()) for value in tensors.values())
        self.files.append(bytes(encode(snapshot)))

    def read(self, index: int, folder: Path) -> Snapshot:
        path = folder / f"{index}.ckpt"
        path.write_bytes(self.files[index])
        return load_checkpoint(path)


class Run:
    """A trainer with a fault in some batches, and what it told."""

    def __init__(
        self,
        precision: PrecisionName = "fp16",
        fault: Fault = loud,
        *,
        marked: Iterable[int] = (3,),
        modules: Iterable[str] = (CONV,),
        in_fp32_too: bool = False,
        accumulate: int = 1,
        poll: Callable[[], Wish | None] | None = None,
        **parts: Any,
    ) -> None:
        self.network = build_network(plan_architecture(parse_architecture(TINY_MODEL), num_classes=2))
        self.events: list[TrainEvent] = []
        self.output = KeepingOutput()
        self.batches = _batches(self.network, set(marked))
        for name in modules:
            _spoil(self.network, name, fault, in_fp32_too)
        strides = self.network.strides.tolist()
        self.trainer: Trainer = build_trainer(
            self.network,
            optimizer=build_optimizer(self.network, name="SGD", lr=0.001, momentum=0.9, weight_decay=0),
            schedule=Rates(accumulate),
            loss=DetectionLoss(num_classes=2, strides=strides, box=0.05, obj=1.0, cls=0.5),
            loader=ListLoader(self.batches, NUM_BATCHES),
            batches_per_epoch=NUM_BATCHES,
            precision=Precision(precision, CPU),
            output=self.output,
            emit=self.events.append,
            poll=poll or (lambda: None),
            **{"epochs": 1, **parts},
        )

    def go(self) -> Run:
        """Run to the end."""
        assert self.trainer.run() is None
        return self

    def warnings(self, code: str) -> list[Warned]:
        return [event for event in self.events if event.type == "warning" and event.code == code]

    @property
    def islands(self) -> list[str]:
        return self.trainer.sentinel.islands.names

    @property
    def state(self) -> dict[str, Any]:
        return self.trainer.sentinel.state()


def _batches(network: Network, marked: set[int], num_epochs: int = 4) -> list[Batch]:
    """Return batches of two pictures; a marked one's first picture has a white pixel in its corner."""
    rng = np.random.default_rng(0)
    batches = []
    for number in range(NUM_BATCHES * num_epochs):
        items = []
        for place in range(2):
            image, rows = draw_shapes(rng, 64)
            if number in marked and place == 0:
                image[0, 0] = 255
            items.append(Item(image, np.array(rows, dtype=np.float32), f"{number}-{place}.png"))
        batches.append(batch_of(items, network, 4.0))
    return batches


def _spoil(network: Network, name: str, fault: Fault, in_fp32_too: bool) -> None:
    is_marked = False

    def look(module: torch.nn.Module, inputs: Any) -> None:
        nonlocal is_marked
        is_marked = bool((inputs[0][:, :, 0, 0] == 1).any())

    def hook(module: torch.nn.Module, inputs: Any, output: Tensor) -> Tensor:
        is_due = module.training and is_marked
        return fault(output) if is_due and (in_fp32_too or output.dtype != torch.float32) else output

    network.register_forward_pre_hook(look)
    network.get_submodule(name).register_forward_hook(hook)


def same(one: Trainer, other: Trainer) -> bool:
    """Tell whether two runs ended bit for bit alike."""
    return all(
        torch.equal(value, theirs.state_dict()[key])
        for mine, theirs in ((one.network, other.network), (one.ema.network, other.ema.network))
        for key, value in mine.state_dict().items()
    )
