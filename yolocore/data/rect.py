"""Batches of one shape each, for pictures of many: sorted by proportion, padded as little as possible.

Pure functions of sizes; nothing here knows a picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class RectPlan:
    """`order[k]` is the picture at place k; batch b has `shapes_hw[b]` and the next `batch_size` places."""

    order: tuple[int, ...]
    shapes_hw: tuple[tuple[int, int], ...]
    batch_size: int

    def shape_at(self, position: int) -> tuple[int, int]:
        """Return (height, width) of the batch that a place belongs to."""
        return self.shapes_hw[position // self.batch_size]


def plan_rectangles(
    sizes_hw: Sequence[tuple[int, int]], *, batch_size: int, imgsz: int, stride: int = 32, pad: float = 0.5
) -> RectPlan:
    """Sort pictures by height over width and give each batch the smallest shape that holds them.

    A batch of only wide (or only tall) pictures loses height (or width); sides are multiples of `stride`
    after adding `pad` strides. Pictures of equal proportion keep their order.
    """
    ratios = [height / width for height, width in sizes_hw]
    order = sorted(range(len(ratios)), key=ratios.__getitem__)
    shapes = []
    for start in range(0, len(order), batch_size):
        batch = [ratios[i] for i in order[start : start + batch_size]]
        factors = (1.0, 1.0)
        if max(batch) < 1:
            factors = (max(batch), 1.0)
        elif min(batch) > 1:
            factors = (1.0, 1 / min(batch))
        height, width = (math.ceil(factor * imgsz / stride + pad) * stride for factor in factors)
        shapes.append((height, width))
    return RectPlan(tuple(order), tuple(shapes), batch_size)


def plan_squares(count: int, *, batch_size: int, imgsz: int) -> RectPlan:
    """Keep the order and give every batch the square of `imgsz`."""
    num_batches = math.ceil(count / batch_size)
    return RectPlan(tuple(range(count)), ((imgsz, imgsz),) * num_batches, batch_size)
