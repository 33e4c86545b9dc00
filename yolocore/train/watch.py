"""The watch over losses that are not finite, and the one place where losses leave the device.

Flags and sums are kept on the device; `read` is the loop's only synchronisation, once a logging window.
It must not know the network; what to do about a bad batch beyond naming it belongs here when it comes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from yolocore.errors import NonFiniteError
from yolocore.train.precision import PrecisionName

NEVER = 2**62
SMALLEST_SCALE = 1.0


@dataclass(frozen=True)
class Window:
    """Means over the batches since the last reading; `skipped` counts steps the scaler refused so far."""

    losses: tuple[float, float, float]
    num_batches: int
    num_images: int
    skipped: int


class Watch:
    """Running means of the epoch and of the window, and the first batch whose loss was not finite."""

    def __init__(self, precision: PrecisionName, device: torch.device, batches_per_epoch: int) -> None:
        self._precision = precision
        self._batches_per_epoch = batches_per_epoch
        self.epoch_sum = torch.zeros(3, device=device)
        self.epoch_count = 0
        self._window_sum = torch.zeros(3, device=device)
        self._skipped = torch.zeros((), dtype=torch.int64, device=device)
        self._first_bad = torch.full((), NEVER, dtype=torch.int64, device=device)
        self._names: dict[int, list[str]] = {}
        self._num_images = 0

    def begin_epoch(self) -> None:
        """Forget the running means of the epoch before."""
        self.epoch_sum.zero_()
        self.epoch_count = 0

    def add(self, counter: int, items: torch.Tensor, names: list[str]) -> None:
        """Take the three loss terms of a batch, detached, and the names of its images."""
        self.epoch_sum += items
        self.epoch_count += 1
        self._window_sum += items
        self._names[counter] = names
        self._num_images += len(names)
        self._mark(torch.isfinite(items).all(), counter)

    def add_step(self, counter: int, norm: torch.Tensor) -> None:
        """Take the gradient norm of a step; one that is not finite was skipped by a scaler, or is fatal."""
        finite = torch.isfinite(norm)
        if self._precision == "fp16":
            self._skipped += ~finite
        else:
            self._mark(finite, counter)

    def read(self, scale: float | None) -> Window:
        """Read the device, begin a new window, return the means of the old one; raises as `check` does."""
        box, obj, cls, skipped = self.check(scale)
        count = max(len(self._names), 1)
        window = Window(
            losses=(box / count, obj / count, cls / count),
            num_batches=len(self._names),
            num_images=self._num_images,
            skipped=int(skipped),
        )
        self._names.clear()
        self._num_images = 0
        self._window_sum.zero_()
        self._first_bad.fill_(NEVER)
        return window

    def check(self, scale: float | None) -> tuple[float, float, float, float]:
        """Read the window's three sums and the skipped steps from the device.

        Raises NonFiniteError with the images of the first bad batch. A loss that is not finite is fatal with
        a scaler too: what overflowed on the way forward is in the norms' running statistics, and a skipped
        step does not take it out. So are a scaler's gradients when its `scale` fell so low that they
        themselves must be broken.
        """
        packed = torch.cat([self._window_sum.double(), self._skipped[None], self._first_bad[None]])
        box, obj, cls, skipped, first_bad = packed.tolist()
        if int(first_bad) in self._names:
            raise self._error(int(first_bad), "the loss or its gradients are not finite")
        if scale is not None and scale < SMALLEST_SCALE:
            raise self._error(int(first_bad), f"the gradients stayed non-finite down to a scale of {scale:g}")
        return box, obj, cls, skipped

    def epoch_means(self) -> tuple[float, float, float]:
        """Return the mean terms of the epoch so far; reads the device."""
        box, obj, cls = (self.epoch_sum / max(self.epoch_count, 1)).tolist()
        return box, obj, cls

    def _mark(self, finite: torch.Tensor, counter: int) -> None:
        bad = torch.where(finite, NEVER, counter)
        torch.minimum(self._first_bad, bad, out=self._first_bad)

    def _error(self, counter: int, what: str) -> NonFiniteError:
        counter = counter if counter in self._names else max(self._names, default=0)
        names = self._names.get(counter, [])
        epoch, batch = divmod(counter, self._batches_per_epoch)
        place = f"epoch {epoch + 1}, batch {batch + 1}"
        way_out = "look at its images' labels or lower the rate"
        if self._precision != "fp32":
            way_out += ", or train in fp32"
        return NonFiniteError(
            f"{what} at {place} in {self._precision}; {way_out}", place=place, value=", ".join(names)
        )
