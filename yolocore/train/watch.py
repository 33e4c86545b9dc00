"""The watch over losses that are not finite, and the one place where losses leave the device.

Flags and sums are kept on the device; `read` is the loop's only synchronisation, once a logging window.
It must not know the network, nor what is done about a bad batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from yolocore.train.precision import Precision

NEVER = 2**62
SMALLEST_SCALE = 1.0
LONGEST_STREAK = 20

Cause = Literal["loss", "gradients", "streak"]


class BadBatch(Exception):  # noqa: N818 - the loop can still mend it
    """A batch, counted over all epochs, whose loss is not finite, or a step that no scaler will mend."""

    def __init__(self, counter: int, cause: Cause, what: str, images: list[str]) -> None:
        super().__init__(counter, cause, what, images)
        self.counter = counter
        self.cause = cause
        self.what = what
        self.images = images


@dataclass(frozen=True)
class Window:
    """Means over the batches since the last reading; `skipped` counts steps the scaler refused so far."""

    losses: tuple[float, float, float]
    num_batches: int
    num_images: int
    skipped: int
    scale: float | None


class Watch:
    """Running means of the epoch and of the window, and the first batch that went wrong.

    A loss that is not finite is bad with a scaler too: what overflowed on the way forward is in the norms'
    running statistics, and a skipped step does not take it out. Gradients alone are the scaler's ordinary
    business, until `LONGEST_STREAK` steps in a row were skipped or the scale fell under `SMALLEST_SCALE`.
    """

    def __init__(self, precision: Precision) -> None:
        self._precision = precision
        device = precision.device
        self.epoch_sum = torch.zeros(3, device=device)
        self.epoch_count = 0
        self._window_sum = torch.zeros(3, device=device)
        self._skipped = torch.zeros((), dtype=torch.int64, device=device)
        self._streak = torch.zeros((), dtype=torch.int64, device=device)
        self._bad_loss = torch.full((), NEVER, dtype=torch.int64, device=device)
        self._bad_step = torch.full((), NEVER, dtype=torch.int64, device=device)
        self._names: dict[int, list[str]] = {}
        self._num_images = 0

    def begin_epoch(self) -> None:
        """Forget the running means of the epoch before."""
        self.epoch_sum.zero_()
        self.epoch_count = 0

    def begin_window(self) -> None:
        """Forget the batches since the last reading, bad ones too."""
        self._names.clear()
        self._num_images = 0
        self._window_sum.zero_()
        self._bad_loss.fill_(NEVER)
        self._bad_step.fill_(NEVER)

    def add(self, counter: int, items: torch.Tensor, names: list[str]) -> None:
        """Take the three loss terms of a batch, detached, and the names of its images."""
        self.epoch_sum += items
        self.epoch_count += 1
        self._window_sum += items
        self._names[counter] = names
        self._num_images += len(names)
        _mark(self._bad_loss, torch.isfinite(items).all(), counter)

    def add_step(self, counter: int, norm: torch.Tensor) -> None:
        """Take the gradient norm of a step; one that is not finite was skipped by a scaler, or is fatal."""
        fine = torch.isfinite(norm)
        scale = self._precision.scale_on_device
        if scale is not None:
            self._skipped += ~fine
            self._streak.copy_(torch.where(fine, 0, self._streak + 1))
            fine = (self._streak < LONGEST_STREAK) & (scale >= SMALLEST_SCALE).all()
        _mark(self._bad_step, fine, counter)

    def read(self) -> Window:
        """Read the device, begin a new window, return the means of the old one; raises as `check` does."""
        box, obj, cls, skipped, scale = self.check()
        count = max(len(self._names), 1)
        window = Window(
            losses=(box / count, obj / count, cls / count),
            num_batches=len(self._names),
            num_images=self._num_images,
            skipped=int(skipped),
            scale=scale,
        )
        self.begin_window()
        return window

    def check(self) -> tuple[float, float, float, float, float | None]:
        """Read the window's three sums, the skipped steps and the scale from the device; raises BadBatch."""
        scale = self._precision.scale_on_device
        packed = [self._window_sum.double(), self._skipped[None], self._bad_loss[None], self._bad_step[None]]
        if scale is not None:
            packed.append(scale.reshape(1))
        box, obj, cls, skipped, bad_loss, bad_step, *scales = torch.cat(packed).tolist()
        bad = int(min(bad_loss, bad_step))
        if bad < NEVER:
            raise self._bad_batch(bad, is_loss=bad_loss == bad)
        return box, obj, cls, skipped, scales[0] if scales else self._precision.scale

    def epoch_means(self) -> tuple[float, float, float]:
        """Return the mean terms of the epoch so far; reads the device."""
        box, obj, cls = (self.epoch_sum / max(self.epoch_count, 1)).tolist()
        return box, obj, cls

    @property
    def skips(self) -> tuple[int, int]:
        """How many steps the scaler has skipped, and how many of them the last ones in a row; reads."""
        skipped, streak = torch.stack((self._skipped, self._streak)).tolist()
        return skipped, streak

    @skips.setter
    def skips(self, values: tuple[int, int]) -> None:
        self._skipped.fill_(values[0])
        self._streak.fill_(values[1])

    def _bad_batch(self, counter: int, *, is_loss: bool) -> BadBatch:
        images = self._names.get(counter, [])
        if is_loss:
            return BadBatch(counter, "loss", "the loss is not finite", images)
        if self._precision.scale is None:
            return BadBatch(counter, "gradients", "the gradients are not finite", images)
        streak = self.skips[1]
        what = f"the gradients of {streak} step(s) in a row were not finite, whatever the scale"
        return BadBatch(counter, "streak", what, images)


def _mark(first_bad: torch.Tensor, fine: torch.Tensor, counter: int) -> None:
    bad = torch.where(fine, NEVER, counter)
    torch.minimum(first_bad, bad, out=first_bad)
