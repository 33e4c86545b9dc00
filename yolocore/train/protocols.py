"""What the loop asks of the things it holds, so that a test can put anything of that shape in their place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol

from torch import Tensor

from yolocore.data.collate import Batch
from yolocore.loss.detection import BatchTargets
from yolocore.spec.events import EpochDone
from yolocore.train.checkpoint import Snapshot, Tensors
from yolocore.train.schedule import Point

Wish = Literal["cancel", "stop", "pause", "drain"]


class Interrupted(Exception):  # noqa: N818 - a wish is no error
    """Somebody wished that the run end here."""

    def __init__(self, wish: Wish) -> None:
        super().__init__(wish)
        self.wish = wish


class Loss(Protocol):
    """What the loop needs of a loss: total (1,), items (3,), and the balance of its levels as its state."""

    balance: list[float]

    def __call__(self, maps: list[Tensor], targets: BatchTargets) -> tuple[Tensor, Tensor]: ...


class Loader(Protocol):
    """What the loop needs of a loader: the batches of an epoch from any one on, the same at each asking."""

    def epoch(self, epoch: int, start_batch: int | None = None) -> Iterator[Batch]: ...


class Rates(Protocol):
    """What the loop needs of a schedule."""

    def at(self, counter: int) -> Point: ...


class Output(Protocol):
    """Where a run's files go."""

    def checkpoint(self, snapshot: Snapshot) -> None: ...

    def finished_epoch(self, rows: list[EpochDone], ema: Tensors) -> None: ...
