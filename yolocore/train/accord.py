"""How several loops stay one run: rank 0 decides, and all of them hear it at the same batch.

The others neither validate nor write nor tell; they train their share and follow. It must not know the loop:
it stands in for some of what a loop is given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from yolocore.eval.validate import ValidationResult
from yolocore.spec.events import BatchDone, EpochDone, TrainEvent, Warned
from yolocore.train.checkpoint import Snapshot, Tensors
from yolocore.train.distributed import Group, settle_buckets, wrap
from yolocore.train.protocols import Interrupted, Loss, Wish

Evaluate = Callable[[Any], ValidationResult]


class Accord:
    """Wishes, validation results and the loss's balance of rank 0, shared out.

    `poll` must be called equally often on all ranks, so a validation of rank 0 has to ask for wishes itself.
    """

    def __init__(
        self,
        group: Group,
        *,
        loss: Loss,
        balance_moves: bool,
        poll: Callable[[], Wish | None],
        evaluate: Evaluate | None,
        emit: Callable[[TrainEvent], None],
    ) -> None:
        """Take what rank 0 asks and tells itself; `evaluate` is None on the others."""
        self._group = group
        self._loss = loss
        self._balance_moves = balance_moves
        self._poll = poll
        self._evaluate = evaluate
        self._emit = emit

    def forward(self, network: nn.Module, images: Tensor) -> Callable[[Tensor], Any]:
        """Return what the loop calls in the network's place, once all ranks have come this far.

        `images` are any that the network takes (see `settle_buckets`).
        """
        self._group.barrier()
        wrapped = wrap(network, self._group.device)
        settle_buckets(wrapped, images)
        return wrapped

    def poll(self) -> Wish | None:
        """Return rank 0's wish, on all ranks the same; takes its balance over too, if that moves."""
        mine = self._poll() if self._group.rank == 0 else None
        wish, balance = self._group.broadcast((mine, self._loss.balance if self._balance_moves else None))
        if balance is not None and self._group.rank > 0:
            self._loss.balance = balance
        return wish

    def evaluate(self, network: nn.Module) -> ValidationResult:
        """Validate on rank 0 while the others wait; all return its result, or raise its Interrupted.

        Before, the ranks' weights are compared: they are equal, bit for bit, unless their devices reckon
        differently, and then each would soon train a network of its own. That is told, once an epoch.
        """
        if not self._group.agree(digest(network)):
            self._emit(Warned(code="RANKS_DIFFER", message="the processes' averaged weights are not equal"))
        found: ValidationResult | Wish | None = None
        if self._evaluate is not None:
            try:
                found = self._evaluate(network)
            except Interrupted as interruption:
                found = interruption.wish
        told = replace(found, samples=[]) if isinstance(found, ValidationResult) else found
        told = self._group.broadcast(told)
        if isinstance(told, str):
            raise Interrupted(told)
        assert told is not None, "rank 0 always finds something"
        return found if isinstance(found, ValidationResult) else told

    def emit(self, event: TrainEvent) -> None:
        """Tell an event of rank 0's loop, its speed as that of all shares together."""
        if isinstance(event, BatchDone):
            event = event.model_copy(update={"images_per_s": event.images_per_s * self._group.world_size})
        self._emit(event)


def digest(network: nn.Module) -> str:
    """Return a hash of the parameters' bits; buffers are each rank's own until the next forward."""
    hashed = hashlib.sha256()
    for parameter in network.parameters():
        hashed.update(parameter.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return hashed.hexdigest()


class NoOutput:
    """The files of a rank that writes none."""

    def checkpoint(self, snapshot: Snapshot) -> None:
        """Write nothing."""

    def finished_epoch(self, rows: list[EpochDone], ema: Tensors) -> None:
        """Write nothing."""

    def go_on_from(self, checkpoint: Path) -> None:
        """Keep nothing."""


def tell_nothing(event: TrainEvent) -> None:
    """Drop what another rank than 0 would tell."""
