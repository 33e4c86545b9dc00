"""What stands around the real trainer in tests: given batches, fixed rates, no disk, no service."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from yolocore.data.collate import Batch, Item, collate
from yolocore.eval.validate import ValidationResult
from yolocore.eval.validate import validate as judge
from yolocore.model.network import Network
from yolocore.ops.assign import assign_targets
from yolocore.spec.events import EpochDone, TrainEvent
from yolocore.train.checkpoint import Snapshot, Tensors
from yolocore.train.ema import Ema
from yolocore.train.precision import Precision
from yolocore.train.protocols import Loader, Loss, Rates
from yolocore.train.stopping import EarlyStopping
from yolocore.train.trainer import Trainer

if TYPE_CHECKING:
    from tests.fidelity.harness import Case

CPU = torch.device("cpu")


class ListLoader:
    """Hands out the same batches, or those of the epoch, whatever is asked."""

    def __init__(self, batches: Sequence[Batch], per_epoch: int | None = None) -> None:
        self.batches = batches
        self.per_epoch = per_epoch or len(batches)

    def epoch(self, epoch: int, start_batch: int | None = None) -> Iterator[Batch]:
        start = epoch * self.per_epoch
        for index, batch in enumerate(self.batches[start : start + self.per_epoch]):
            if index >= (start_batch or 0):
                yield replace(batch, index=index)


class RecordingPrecision(Precision):
    """Full precision that keeps the norms of all steps."""

    def __init__(self) -> None:
        super().__init__("fp32", CPU)
        self.norms: list[float] = []

    def step(self, optimizer: torch.optim.Optimizer, parameters: Any, clip_norm: float) -> Tensor:
        norm = super().step(optimizer, parameters, clip_norm)
        self.norms.append(float(norm))
        return norm


class NoOutput:
    """Keeps what would have been written."""

    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []
        self.rows: list[EpochDone] = []

    def checkpoint(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)

    def finished_epoch(self, rows: list[EpochDone], ema: Tensors) -> None:
        self.rows = list(rows)


def no_validation(network: Network) -> ValidationResult:
    """Return the result of validating on nothing."""
    return judge(network.eval(), [], loss=None, num_classes=network.head.num_classes)


def toy_items(case: Case) -> list[Item]:
    """Return the pictures of a golden toy set with their rows."""
    count = sum(name.startswith("im") for name in case.inputs)
    return [
        Item(case.inputs[f"im{i}"], case.inputs[f"labels{i}"].astype(np.float32).reshape(-1, 5), f"{i}")
        for i in range(count)
    ]


def batch_of(
    items: Sequence[Item],
    network: Network,
    anchor_t: float,
    *,
    index: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Batch:
    """Collate items and match their targets with the network's anchors.

    Channels first: on a CPU torch's batch norm sums channels-last memory in plain float32 and loses a digit.
    """
    batch = collate(items, index=index)
    batch = replace(batch, images=batch.images.contiguous())
    return matched(batch, batch.targets.to(dtype), network, anchor_t)


def matched(batch: Batch, targets: Tensor, network: Network, anchor_t: float) -> Batch:
    """Give a batch these targets and the cells that answer for them."""
    height, width = batch.images.shape[2:]
    shapes = [(height // int(stride), width // int(stride)) for stride in network.strides.tolist()]
    anchors = network.head.anchors.to(targets.dtype).numpy()
    return replace(batch, targets=targets, matches=assign_targets(targets.numpy(), anchors, shapes, anchor_t))


def build_trainer(
    network: Network,
    *,
    optimizer: torch.optim.Optimizer,
    schedule: Rates,
    loss: Loss,
    loader: Loader,
    batches_per_epoch: int,
    precision: Precision | None = None,
    epochs: int = 1,
    **changes: Any,
) -> Trainer:
    """Build a trainer that writes nothing and is wished nothing; `changes` replace any of its parts."""
    events: list[TrainEvent] = []
    parts: dict[str, Any] = {
        "ema": Ema(network),
        "clip_norm": 10.0,
        "stopping": EarlyStopping(0),
        "evaluate": no_validation,
        "output": NoOutput(),
        "emit": events.append,
        "poll": lambda: None,
        "checkpoint_every_s": float("inf"),
    }
    return Trainer(
        network=network,
        optimizer=optimizer,
        precision=precision or Precision("fp32", CPU),
        schedule=schedule,
        loss=loss,
        loader=loader,
        batches_per_epoch=batches_per_epoch,
        epochs=epochs,
        **{**parts, **changes},
    )
