"""Mosaics and moved pictures without rotation, shear or tilt: one resize per tile, to whole pixels.

The edges of what is in sight of a tile go to the nearest pixel edges of the output, and its labels with
them, so labels fit the pixels exactly and lie within half a pixel of where the matrix takes them. A named
variant of the warp, several times as fast; its pixels differ visibly from it. It knows nothing of colour,
files or draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from yolocore.data.axis_warp import keeps_axes
from yolocore.data.geometry import FloatArray, Matrix, Polygons, keep_rows, resample_polygon
from yolocore.data.mosaic import Tile
from yolocore.data.pixels import FILL, ImageArray
from yolocore.ops.boxes import points_to_box_xyxy

MARGIN = 4  # pixels by which a tile's edges may lie outside of the output
MAX_SCALE = 2.0


class Span(NamedTuple):
    """One axis of a tile: canvas pixels from source[0] to source[1] become output pixels of `target`."""

    source: tuple[int, int]
    target: tuple[int, int]
    scale: float
    shift: float

    @property
    def seen(self) -> bool:
        """Whether any pixel of the output shows it."""
        return self.target[0] < self.target[1]


class PixelTile(NamedTuple):
    """A tile and where its axes go."""

    tile: Tile
    x: Span
    y: Span


def can_snap(matrix: Matrix) -> bool:
    """Tell whether the matrix only moves and scales, and not by so much that edges leave the margin."""
    return keeps_axes(matrix) and max(matrix[0, 0], matrix[1, 1]) <= MAX_SCALE


def snap_tiles(tiles: Sequence[Tile], matrix: Matrix, out_hw: tuple[int, int]) -> list[PixelTile]:
    """Return where each tile goes: the matrix, with the edges in sight rounded to pixels of the output."""
    (scale_x, _, shift_x), (_, scale_y, shift_y) = matrix[:2].tolist()
    return [
        PixelTile(
            tile,
            _snap(tile.region[0], tile.region[2], scale_x, shift_x, out_hw[1]),
            _snap(tile.region[1], tile.region[3], scale_y, shift_y, out_hw[0]),
        )
        for tile in tiles
    ]


def _snap(low: int, high: int, scale: float, shift: float, side: int) -> Span:
    first = max(low, math.floor(-shift / scale))
    last = min(high, math.ceil((side - shift) / scale))
    if first >= last:
        return Span((low, low), (0, 0), scale, shift)
    start, end = round(scale * first + shift), round(scale * last + shift)
    rounded = (end - start) / (last - first)
    return Span((first, last), (start, end), rounded, start - rounded * first)


def map_snapped_labels(
    rows: FloatArray,
    counts: Sequence[int],
    polygons: Polygons | None,
    snapped: Sequence[PixelTile],
    out_hw: tuple[int, int],
    scale: float,
) -> FloatArray:
    """Send label rows `class x1 y1 x2 y2` in canvas pixels where their tiles went; drop those out of sight.

    `counts` is how many rows each tile has, in the order of the tiles; otherwise as `geometry.map_labels`.
    """
    if len(rows) == 0:
        return rows
    per_tile = np.array([(t.x.scale, t.y.scale, t.x.shift, t.y.shift) for t in snapped])
    moves = np.repeat(per_tile, counts, axis=0)
    before = rows[:, 1:5].astype(np.float64)
    boxes = before.reshape(-1, 2, 2) * moves[:, None, :2] + moves[:, None, 2:]
    boxes = np.minimum(np.maximum(boxes, 0), (out_hw[1], out_hw[0])).reshape(-1, 4)
    outlined = np.zeros(len(rows), dtype=np.bool_)
    for i, outline in enumerate(polygons or ()):
        if outline is not None and len(outline) > 0:
            outlined[i] = True
            boxes[i] = points_to_box_xyxy(resample_polygon(outline) * moves[i, :2] + moves[i, 2:], out_hw)
    return keep_rows(rows, boxes, outlined, scale)


def paint(snapped: Sequence[PixelTile], canvas: ImageArray) -> None:
    """Draw the tiles into an output that lies `MARGIN` pixels inside of `canvas`, over grey, bilinearly."""
    canvas.fill(FILL)
    height, width = canvas.shape[0] - 2 * MARGIN, canvas.shape[1] - 2 * MARGIN
    for tile, x, y in snapped:
        if not (x.seen and y.seen):
            continue
        left, top = tile.offset_xy
        source = tile.image[y.source[0] - top : y.source[1] - top, x.source[0] - left : x.source[1] - left]
        x1, x2, y1, y2 = *x.target, *y.target
        assert min(x1, y1) >= -MARGIN and x2 <= width + MARGIN and y2 <= height + MARGIN, (x, y)
        target = canvas[MARGIN + y1 : MARGIN + y2, MARGIN + x1 : MARGIN + x2]
        cv2.resize(source, (x2 - x1, y2 - y1), dst=target, interpolation=cv2.INTER_LINEAR)


def output_of(canvas: ImageArray) -> ImageArray:
    """Return the output that lies inside of a canvas, as a view."""
    return canvas[MARGIN:-MARGIN, MARGIN:-MARGIN]
