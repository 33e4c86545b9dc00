"""What size pictures have on the device: drawn in the loader for multi-scale training, made on the device.

A batch travels in the size it was loaded in and says what it becomes, so that nothing larger is copied and
the targets can be matched before it arrives. It knows nothing of models, precision or training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from yolocore.data.collate import Batch


@dataclass(frozen=True)
class MultiScale:
    """Sizes from half to one and a half times `imgsz`, in multiples of `grid`, both in pixels.

    `grid` is the network's largest stride or more, `imgsz` at least two of it.
    """

    imgsz: int
    grid: int

    def __post_init__(self) -> None:
        assert self.imgsz >= 2 * self.grid > 0, (self.imgsz, self.grid)

    @property
    def span(self) -> tuple[int, int]:
        """The whole numbers drawn from: the first, and the one after the last."""
        return int(0.5 * self.imgsz), int(1.5 * self.imgsz) + self.grid

    def size_of(self, drawn: int) -> int:
        """Return the size, in pixels of the longer side, that a drawn number stands for."""
        return drawn // self.grid * self.grid

    @property
    def sizes(self) -> list[int]:
        """All sizes that can be drawn, smallest first."""
        first, end = self.span
        return list(range(self.size_of(first), end, self.grid))

    def draw(self, rng: np.random.Generator) -> int:
        """Draw the size of one batch."""
        return self.size_of(int(rng.integers(*self.span)))

    def shape(self, hw: tuple[int, int], size: int) -> tuple[int, int] | None:
        """Return (height, width) of pictures `hw` whose longer side becomes `size`; None if it has it.

        Both sides are rounded up to the grid in float64, as in YOLOv5: with a few sizes the longer side
        comes out one grid larger (608 to 672 gives 704).
        """
        factor = size / max(hw)
        if factor == 1:
            return None
        height, width = (math.ceil(side * factor / self.grid) * self.grid for side in hw)
        return height, width

    def largest(self, hw: tuple[int, int]) -> tuple[int, int]:
        """Return the largest (height, width) that pictures `hw` can become: what memory has to hold."""
        return max(self.shape(hw, size) or hw for size in self.sizes)


def to_images(batch: Batch, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Copy a batch's pictures to a device, scaled to 0..1 and resized (bilinear) if the batch asks for it.

    Returns (B, 3, H, W) in `dtype`, in the memory layout of `batch.images`; H, W are `batch.input_hw`.
    """
    images = batch.images.to(device, non_blocking=True).to(dtype) / 255
    if batch.resized_hw is None:
        return images
    return torch.nn.functional.interpolate(
        images, size=batch.resized_hw, mode="bilinear", align_corners=False
    )
