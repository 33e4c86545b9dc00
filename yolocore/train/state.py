"""The state of a loop between two batches: taken out of it as a snapshot, and put back.

It must not know files; `checkpoint.py` writes and reads snapshots.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from yolocore.spec.events import EpochDone
from yolocore.train.checkpoint import Position, Snapshot, detached, load_into
from yolocore.train.stopping import EarlyStopping

if TYPE_CHECKING:
    from yolocore.train.trainer import Trainer


def snapshot_of(trainer: Trainer) -> Snapshot:
    """Return the state of the run between two batches; tensors are the live ones, for writing at once."""
    position, best = trainer.position, trainer.best
    best_is_ema = best is not None and position == Position(best.epoch + 1, 0, position.last_step)
    gradients = {
        name: parameter.grad
        for name, parameter in trainer.network.named_parameters()
        if parameter.grad is not None
    }
    return Snapshot(
        position=position,
        model=detached(trainer.network.state_dict()),
        ema=detached(trainer.ema.network.state_dict()),
        ema_updates=trainer.ema.updates,
        optimizer=trainer.optimizer.state_dict(),
        scaler=trainer.precision.state_dict(),
        gradients=gradients,
        epoch_sum=trainer.watch.epoch_sum,
        epoch_count=trainer.watch.epoch_count,
        best=best,
        best_weights=None if best_is_ema else trainer.best_weights,
        stopping=asdict(trainer.stopping),
        balance=trainer.loss.balance,
        rows=[row.model_dump(mode="json") for row in trainer.rows],
        class_maps=trainer.class_maps,
        sentinel=trainer.sentinel.state(),
        epoch_s=time.monotonic() - trainer.epoch_began,
    )


def restore_into(trainer: Trainer, snapshot: Snapshot) -> None:
    """Take a run up where a snapshot left it; raises CheckpointError where it is of another network."""
    load_into(trainer.network, snapshot.model, "network")
    load_into(trainer.ema.network, snapshot.ema, "average")
    trainer.ema.updates = snapshot.ema_updates
    trainer.optimizer.load_state_dict(snapshot.optimizer)
    trainer.sentinel.load(snapshot.sentinel)
    trainer.precision.load_state_dict(snapshot.scaler)
    for name, parameter in trainer.network.named_parameters():
        gradient = snapshot.gradients.get(name)
        parameter.grad = None if gradient is None else gradient.to(trainer.precision.device)
    trainer.watch.epoch_sum.copy_(snapshot.epoch_sum)
    trainer.watch.epoch_count = snapshot.epoch_count
    trainer.best = snapshot.best
    if trainer.best is not None:
        weights = snapshot.ema if snapshot.best_weights is None else snapshot.best_weights
        trainer.best_weights = {key: value.to(trainer.precision.device) for key, value in weights.items()}
    trainer.stopping = EarlyStopping(**snapshot.stopping)
    trainer.loss.balance = snapshot.balance
    trainer.rows = [EpochDone.model_validate(row) for row in snapshot.rows]
    trainer.class_maps = snapshot.class_maps
    trainer.position = snapshot.position
    trainer.epoch_began = time.monotonic() - snapshot.epoch_s
