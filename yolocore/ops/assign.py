"""Which cells and anchors answer for which target: index lists instead of boolean masks in the loss.

Targets and anchors decide the assignment, predictions do not; it is therefore numpy only and runs in the
threads that load the batch, beside the training step. It must not know about torch, predictions or the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]

# Own cell, then the neighbour to the left, above, to the right, below: what is subtracted before truncation.
_OFFSETS = np.array([[0.0, 0.0], [0.5, 0.0], [0.0, 0.5], [-0.5, 0.0], [0.0, -0.5]])


@dataclass(frozen=True)
class LevelMatches:
    """The m rows of one level where a cell answers for a target, in the order of `assign_targets`.

    `box` is (x, y) from the cell's corner and (w, h), in grid units; `map_shape` is (anchors, rows, columns).
    Several rows can share a cell: `winner` lists, for every answering cell, the last row that names it.
    """

    image: Ints
    anchor: Ints
    gj: Ints
    gi: Ints
    cls: Ints
    box: Floats
    anchor_wh: Floats
    target_index: Ints
    winner: Ints
    map_shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.image)


def assign_targets(
    targets: Floats,
    anchors_grid: Floats,
    map_shapes: Sequence[tuple[int, int]],
    anchor_t: float,
) -> list[LevelMatches]:
    """Match targets to cells and anchors of every level.

    `targets` (n, 6) rows (image, class, x, y, w, h) normalised; `anchors_grid` (levels, anchors, 2) in grid
    units; `map_shapes` (rows, columns) of every level. An anchor answers if neither side differs from the
    target's by a factor of `anchor_t` or more; besides the own cell the nearest neighbour in each direction
    answers too. Row order: own cells, left, upper, right, lower neighbours; in each group anchor by anchor,
    targets in order. A centre on a whole number has both neighbours of that axis, one of which is the own
    cell again. Arithmetic is float32 unless the targets are float64. Source of the rule: YOLOv5's published
    target building.
    """
    dtype = np.float64 if targets.dtype == np.float64 else np.float32
    rows: Floats = targets.reshape(-1, 6).astype(dtype)
    anchors: Floats = np.asarray(anchors_grid, dtype)
    image_and_class = rows[:, :2].astype(np.int64)
    return [
        _match_level(rows, image_and_class, anchors[level], shape, anchor_t)
        for level, shape in enumerate(map_shapes)
    ]


def _match_level(
    targets: Floats, image_and_class: Ints, anchors: Floats, map_shape: tuple[int, int], anchor_t: float
) -> LevelMatches:
    dtype = targets.dtype
    ny, nx = map_shape
    size = np.array([nx, ny], dtype)
    xy, wh = targets[:, 2:4] * size, targets[:, 4:6] * size

    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = wh[None] / anchors[:, None]
        worst = np.maximum(ratio, 1 / ratio).max(2)
    anchor, target = np.nonzero(worst < anchor_t)

    centre = xy[target]
    group, pair = np.nonzero(_answers(centre, size))
    anchor, target, centre = anchor[pair], target[pair], centre[pair]
    cell = (centre - _OFFSETS.astype(dtype)[group]).astype(np.int64)
    # The box is taken from the clamped cell: it matters for centres exactly on the right or lower border.
    np.clip(cell, 0, [nx - 1, ny - 1], out=cell)
    gi, gj = cell[:, 0], cell[:, 1]
    image = image_and_class[target, 0]
    return LevelMatches(
        image=image,
        anchor=anchor,
        gj=np.ascontiguousarray(gj),
        gi=np.ascontiguousarray(gi),
        cls=image_and_class[target, 1],
        box=np.concatenate((centre - cell.astype(dtype), wh[target]), 1),
        anchor_wh=anchors[anchor],
        target_index=target,
        winner=_last_writers(((image * len(anchors) + anchor) * ny + gj) * nx + gi),
        map_shape=(len(anchors), ny, nx),
    )


def _answers(centre: Floats, size: Floats) -> NDArray[np.bool_]:
    """Tell for (k, 2) centres in grid units which of the five groups they enter; shape (5, k)."""
    from_end = size - centre
    near_start = (centre % 1 < 0.5) & (centre > 1)
    near_end = (from_end % 1 < 0.5) & (from_end > 1)
    own = np.ones((1, len(centre)), np.bool_)
    return np.concatenate((own, near_start.T, near_end.T), 0)


def _last_writers(cell: Ints) -> Ints:
    """Return, for every distinct cell number, the highest row that holds it; ordered by cell number."""
    if len(cell) == 0:
        return np.zeros(0, np.int64)
    order = np.argsort(cell, kind="stable")
    ordered = cell[order]
    ends = np.append(ordered[1:] != ordered[:-1], True)
    winners: Ints = order[ends]
    return winners
