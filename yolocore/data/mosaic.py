"""Four pictures on one canvas, and the renderer that turns tiles and a matrix into the training image.

The canvas is never larger than what the output window sees of it: tiles are placed, cut to that window and
warped once. With the identity and a window of the canvas' size the result is the canvas itself. It knows
nothing of files or of how the numbers were drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from yolocore.data.axis_warp import BORDER, keeps_axes, warp_axes
from yolocore.data.geometry import FloatArray, Matrix, is_affine, map_points, xywh_norm_to_xyxy_px
from yolocore.data.pixels import FILL, ImageArray, as_image
from yolocore.data.scratch import Scratch

Window = tuple[int, int, int, int]


@dataclass(frozen=True)
class MosaicDraw:
    """One mosaic: the canvas point (y, x) where the pictures meet, and the pictures, top left first."""

    centre_yx: tuple[int, int]
    indices: tuple[int, int, int, int]


@dataclass(frozen=True)
class Tile:
    """A picture at `offset_xy` of the canvas, of which the canvas shows `region` (x1, y1, x2, y2)."""

    image: ImageArray
    offset_xy: tuple[int, int]
    region: tuple[int, int, int, int]


def draw_mosaic(
    rng: np.random.Generator,
    index: int,
    count: int,
    side: int,
    pool: npt.NDArray[np.int64] | None = None,
) -> MosaicDraw:
    """Draw the meeting point (y first) and three partners out of `count` pictures, in random order.

    With a `pool` of `count` picture numbers the partners come from it, as often as they are in it.
    """
    y, x = rng.uniform(side / 2, 3 * side / 2, size=2)
    partners = rng.integers(0, count, size=3)
    indices = np.array([index, *(partners if pool is None else pool[partners])])
    rng.shuffle(indices)
    a, b, c, d = (int(i) for i in indices)
    return MosaicDraw((int(y), int(x)), (a, b, c, d))


def place_tiles(images: Sequence[ImageArray], centre_yx: tuple[int, int], side: int) -> list[Tile]:
    """Place four pictures round the centre of a canvas of twice the side, each touching it with a corner.

    Order: top left, top right, bottom left, bottom right. What exceeds the canvas is cut.
    """
    yc, xc = centre_yx
    tiles = []
    for number, image in enumerate(images):
        height, width = image.shape[:2]
        x = xc - width if number % 2 == 0 else xc
        y = yc - height if number < 2 else yc
        region = (max(x, 0), max(y, 0), min(x + width, 2 * side), min(y + height, 2 * side))
        tiles.append(Tile(image, (x, y), region))
    return tiles


def tile_rows(tile: Tile, rows: FloatArray, canvas_side: int) -> FloatArray:
    """Return a tile's rows `class x1 y1 x2 y2` in canvas pixels, clipped to the canvas."""
    return rows_on_canvas([tile], [rows], canvas_side)


def rows_on_canvas(tiles: Sequence[Tile], rows: Sequence[FloatArray], canvas_side: int) -> FloatArray:
    """Return all rows of the tiles as `class x1 y1 x2 y2` in canvas pixels, clipped to the canvas.

    `rows` are each tile's, `class x y w h` normalised to its picture; so is their order.
    """
    counts = [len(part) for part in rows]
    places = np.array(
        [(tile.image.shape[1], tile.image.shape[0], *tile.offset_xy) for tile in tiles], dtype=np.float32
    )
    width, height, x, y = np.repeat(places, counts, axis=0).T
    placed = xywh_norm_to_xyxy_px(np.concatenate(rows), (width, height), (x, y))
    np.clip(placed[:, 1:], 0, canvas_side, out=placed[:, 1:])
    return placed


def tile_polygon(tile: Tile, polygon: FloatArray, canvas_side: int) -> FloatArray:
    """Return a normalised polygon (k, 2) in canvas pixels, clipped to the canvas."""
    height, width = tile.image.shape[:2]
    scale = np.array([width, height], dtype=np.float32)
    placed: FloatArray = polygon * scale + np.array(tile.offset_xy, dtype=np.float32)
    return placed.clip(0, canvas_side)


def render(
    tiles: Sequence[Tile],
    canvas_hw: tuple[int, int],
    matrix: Matrix,
    out_hw: tuple[int, int],
    out: ImageArray | None = None,
    scratch: Scratch | None = None,
) -> ImageArray:
    """Warp the canvas that the tiles form through the matrix into an image of `out_hw` pixels.

    Outside the tiles all is grey. Bilinear; the result shares no memory with the tiles. It is written into
    `out` (height, width, 3) if that is given, contiguous and overwritten; `scratch` has room for the canvas.
    """
    image = np.empty((*out_hw, 3), dtype=np.uint8) if out is None else out
    if out_hw == canvas_hw and np.array_equal(matrix, np.eye(3)):
        _assemble(tiles, (0, 0, canvas_hw[1], canvas_hw[0]), image)
        return image
    window = _visible_window(canvas_hw, matrix, out_hw)
    shift = np.eye(3)
    shift[:2, 2] = window[:2]
    matrix = matrix @ shift
    if keeps_axes(matrix):
        scratch = Scratch() if scratch is None else scratch
        framed = window[0] - BORDER, window[1] - BORDER, window[2] + BORDER, window[3] + BORDER
        source = scratch.get("source", (framed[3] - framed[1], framed[2] - framed[0]))
        _assemble(tiles, framed, source, window)
        warp_axes(source, matrix, image, scratch)
        return image
    part = _whole_tile(tiles, window)
    if part is None:
        part = np.empty((window[3] - window[1], window[2] - window[0], 3), dtype=np.uint8)
        _assemble(tiles, window, part)
    return warp(part, matrix, image)


def warp(source: ImageArray, matrix: Matrix, out: ImageArray) -> ImageArray:
    """Warp a picture HWC uint8 bilinearly into `out`, and return it; outside of the picture all is grey."""
    size_wh = (out.shape[1], out.shape[0])
    grey = (FILL,) * 3
    if is_affine(matrix):
        return as_image(cv2.warpAffine(source, matrix[:2], dst=out, dsize=size_wh, borderValue=grey))
    return as_image(cv2.warpPerspective(source, matrix, dst=out, dsize=size_wh, borderValue=grey))


def whole(image: ImageArray) -> Tile:
    """Return the picture as the only tile of a canvas of its size."""
    height, width = image.shape[:2]
    return Tile(image, (0, 0), (0, 0, width, height))


def _assemble(tiles: Sequence[Tile], window: Window, out: ImageArray, shown: Window | None = None) -> None:
    """Fill `out` with a window (x1, y1, x2, y2) of the canvas: the tiles where it is `shown`, and grey."""
    wx1, wy1, wx2, wy2 = shown or window
    out.fill(FILL)
    for tile in tiles:
        x1, y1 = max(tile.region[0], wx1), max(tile.region[1], wy1)
        x2, y2 = min(tile.region[2], wx2), min(tile.region[3], wy2)
        if x1 < x2 and y1 < y2:
            x, y = tile.offset_xy
            part = tile.image[y1 - y : y2 - y, x1 - x : x2 - x]
            out[y1 - window[1] : y2 - window[1], x1 - window[0] : x2 - window[0]] = part


def _whole_tile(tiles: Sequence[Tile], window: Window) -> ImageArray | None:
    """Return the part of a tile that alone fills the window, so that nothing need be copied."""
    for tile in tiles:
        x1, y1, x2, y2 = tile.region
        if x1 <= window[0] and y1 <= window[1] and x2 >= window[2] and y2 >= window[3]:
            x, y = tile.offset_xy
            return tile.image[window[1] - y : window[3] - y, window[0] - x : window[2] - x]
    return None


def _visible_window(canvas_hw: tuple[int, int], matrix: Matrix, out_hw: tuple[int, int]) -> Window:
    """Return the part (x1, y1, x2, y2) of the canvas that the output can see, with a margin."""
    everything = (0, 0, canvas_hw[1], canvas_hw[0])
    inverse = np.linalg.inv(matrix)
    corners = np.array([[0, 0], [out_hw[1], 0], [out_hw[1], out_hw[0]], [0, out_hw[0]]], dtype=np.float64)
    depth = corners @ inverse[2, :2] + inverse[2, 2]
    if depth.min() <= 1e-6:
        return everything  # the horizon is in sight
    seen = map_points(corners, inverse / inverse[2, 2])
    x1, y1 = (max(math.floor(v) - 2, 0) for v in seen.min(axis=0))
    x2, y2 = (math.ceil(v) + 3 for v in seen.max(axis=0))
    x2, y2 = min(x2, canvas_hw[1]), min(y2, canvas_hw[0])
    if x1 >= x2 or y1 >= y2:
        return (0, 0, 1, 1)  # nothing of it: grey, from one pixel far outside the output
    return (x1, y1, x2, y2)
