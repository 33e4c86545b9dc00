"""When a run has stopped getting better. It must not know metrics beyond one number an epoch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class EarlyStopping:
    """Ends a run after `patience` epochs without a strictly better fitness; 0 never does."""

    patience: int
    best_fitness: float = -1.0
    best_epoch: int = 0

    def update(self, epoch: int, fitness: float) -> None:
        """Take one epoch's fitness."""
        if fitness > self.best_fitness:
            self.best_fitness, self.best_epoch = fitness, epoch

    def exhausted(self, epoch: int) -> bool:
        """Tell whether the run ends after this epoch."""
        return bool(self.patience) and epoch - self.best_epoch >= self.patience

    def may_end_next(self, epoch: int) -> bool:
        """Tell whether one more epoch without a better fitness ends the run."""
        return bool(self.patience) and epoch - self.best_epoch >= self.patience - 1
