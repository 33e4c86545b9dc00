"""Rate, momentum and accumulation as a function of the batch counter, so that resuming needs no state.

Pure arithmetic; it must not know torch or an optimizer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


def linear_factor(epoch: float, epochs: int, final: float) -> float:
    """Return the factor on the first rate after `epoch` of `epochs`: a straight line down to `final`."""
    return (1 - epoch / epochs) * (1 - final) + final


def cosine_factor(epoch: float, epochs: int, final: float) -> float:
    """Return the factor on the first rate: half a cosine down to `final` (Loshchilov, Hutter 2017)."""
    return ((1 - math.cos(math.pi * epoch / epochs)) / 2) * (final - 1) + 1


def accumulation(batch: int, nominal_batch: int) -> int:
    """Return how many batches of `batch` images make one step of about `nominal_batch` images."""
    return max(round(nominal_batch / batch), 1)


def scaled_weight_decay(weight_decay: float, batch: int, nominal_batch: int) -> float:
    """Return the decay for the images one step really sees; the given one is meant for the nominal batch."""
    return weight_decay * batch * accumulation(batch, nominal_batch) / nominal_batch


def warmup_length(warmup_epochs: float, batches_per_epoch: int, min_batches: int) -> int:
    """Return how many batches warm-up lasts, at least `min_batches`."""
    return max(round(warmup_epochs * batches_per_epoch), min_batches)


def trained_size(imgsz: int, largest_stride: int) -> int:
    """Return the image side rounded up to the grid: a multiple of max(stride, 32), at least two of it."""
    grid = max(largest_stride, 32)
    return max(math.ceil(imgsz / grid) * grid, 2 * grid)


@dataclass(frozen=True)
class Point:
    """What holds for one batch; rates in the order biases, decayed weights, norm weights."""

    lr: tuple[float, float, float]
    momentum: float
    accumulate: int


@dataclass(frozen=True)
class Schedule:
    """The whole course of a run; `at` is its only use.

    `batches_per_epoch` counts forwards, `batch` and `nominal_batch` images. After warm-up the rate of epoch e
    is that of factor(e - 1), as in YOLOv5, whose scheduler starts one position early; in warm-up the target
    is factor(e). The last values of warm-up stay to the end of the epoch it ends in.
    """

    epochs: int
    batches_per_epoch: int
    batch: int
    nominal_batch: int
    kind: Literal["linear", "cosine"]
    lr0: float
    lrf: float
    momentum: float
    warmup_epochs: float
    warmup_min_batches: int
    warmup_momentum: float
    warmup_bias_lr: float

    @property
    def num_warmup(self) -> int:
        """Batches of warm-up; 0 switches it off."""
        return warmup_length(self.warmup_epochs, self.batches_per_epoch, self.warmup_min_batches)

    def factor(self, epoch: int) -> float:
        """Return the factor of an epoch by the formula alone."""
        shape = cosine_factor if self.kind == "cosine" else linear_factor
        return shape(epoch, self.epochs, self.lrf)

    def at(self, counter: int) -> Point:
        """Return what holds for batch number `counter`, counted over all epochs from 0."""
        epoch, num_warmup = counter // self.batches_per_epoch, self.num_warmup
        if num_warmup and counter <= num_warmup:
            return self._warming(counter / num_warmup, epoch)
        if num_warmup and epoch == num_warmup // self.batches_per_epoch:
            return self._warming(1.0, epoch)
        rate = self.lr0 * self.factor(max(epoch - 1, 0))
        return Point((rate, rate, rate), self.momentum, accumulation(self.batch, self.nominal_batch))

    def _warming(self, share: float, epoch: int) -> Point:
        target = self.lr0 * self.factor(epoch)
        bias = self.warmup_bias_lr + share * (target - self.warmup_bias_lr)
        return Point(
            lr=(bias, share * target, share * target),
            momentum=self.warmup_momentum + share * (self.momentum - self.warmup_momentum),
            accumulate=max(1, round(1 + share * (self.nominal_batch / self.batch - 1))),
        )
