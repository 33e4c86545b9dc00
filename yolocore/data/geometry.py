"""Random perspective as numbers: the matrix, and where it takes boxes and polygons.

One function for all renderers, so that labels cannot disagree with whichever way the pixels were made. It
knows nothing of pixels, files or mosaics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from yolocore.ops.boxes import box_candidates, points_to_box_xyxy

FloatArray = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]
Polygons = Sequence[FloatArray | None]

POLYGON_POINTS = 1000


@dataclass(frozen=True)
class PerspectiveDraw:
    """One random perspective: tilt, angle and shears in degrees, scale, and translation in output sides."""

    perspective_x: float = 0.0
    perspective_y: float = 0.0
    angle_deg: float = 0.0
    scale: float = 1.0
    shear_x_deg: float = 0.0
    shear_y_deg: float = 0.0
    translate_x: float = 0.5
    translate_y: float = 0.5


def draw_perspective(
    rng: np.random.Generator,
    *,
    degrees: float,
    translate: float,
    scale: float,
    shear: float,
    perspective: float,
) -> PerspectiveDraw:
    """Draw a random perspective; each argument is the largest deviation from doing nothing."""
    unit = rng.uniform(-1.0, 1.0, size=8)
    return PerspectiveDraw(
        perspective_x=float(unit[0] * perspective),
        perspective_y=float(unit[1] * perspective),
        angle_deg=float(unit[2] * degrees),
        scale=float(1 + unit[3] * scale),
        shear_x_deg=float(unit[4] * shear),
        shear_y_deg=float(unit[5] * shear),
        translate_x=float(0.5 + unit[6] * translate),
        translate_y=float(0.5 + unit[7] * translate),
    )


def perspective_matrix(draw: PerspectiveDraw, in_hw: tuple[int, int], out_hw: tuple[int, int]) -> Matrix:
    """Return the 3x3 matrix from input pixels to output pixels: T S R P C, applied right to left.

    C moves the picture's centre to the origin, P tilts, R rotates (counter-clockwise as seen) and scales,
    S shears, T moves to the drawn place of the output.
    """
    centre, tilt, turn, shear, move = (np.eye(3) for _ in range(5))
    centre[0, 2], centre[1, 2] = -in_hw[1] / 2, -in_hw[0] / 2
    tilt[2, 0], tilt[2, 1] = draw.perspective_x, draw.perspective_y
    angle = math.radians(draw.angle_deg)
    cos, sin = draw.scale * math.cos(angle), draw.scale * math.sin(angle)
    turn[:2, :2] = [[cos, sin], [-sin, cos]]
    shear[0, 1] = math.tan(math.radians(draw.shear_x_deg))
    shear[1, 0] = math.tan(math.radians(draw.shear_y_deg))
    move[0, 2], move[1, 2] = draw.translate_x * out_hw[1], draw.translate_y * out_hw[0]
    return np.asarray(move @ shear @ turn @ tilt @ centre)


def map_points(points_xy: npt.NDArray[np.floating], matrix: Matrix) -> Matrix:
    """Send points (n, 2) through a 3x3 matrix, with the division where the matrix tilts."""
    homogeneous = points_xy @ matrix[:, :2].T + matrix[:, 2]
    if is_affine(matrix):
        return np.asarray(homogeneous[:, :2])
    return np.asarray(homogeneous[:, :2] / homogeneous[:, 2:3])


def is_affine(matrix: Matrix) -> bool:
    """Tell whether the matrix needs no perspective division."""
    return bool(matrix[2, 0] == 0 and matrix[2, 1] == 0 and matrix[2, 2] == 1)


def map_labels(
    rows: FloatArray,
    polygons: Polygons | None,
    matrix: Matrix,
    out_hw: tuple[int, int],
    scale: float,
) -> FloatArray:
    """Send label rows `class x1 y1 x2 y2` in pixels through the matrix and drop what is no longer there.

    A row with a polygon follows its outline, one without the four corners of its box. Kept are boxes wider
    and higher than 2 px, with sides in a ratio under 100 and more than a tenth (a hundredth with a polygon)
    of their old area times scale squared.
    """
    if len(rows) == 0:
        return rows
    boxes = _map_boxes(rows[:, 1:5], matrix, out_hw)
    outlined = np.zeros(len(rows), dtype=np.bool_)
    for i, outline in enumerate(polygons or ()):
        if outline is not None and len(outline) > 0:
            outlined[i] = True
            boxes[i] = _map_polygon(outline, matrix, out_hw)
    return keep_rows(rows, boxes, outlined, scale)


def keep_rows(
    rows: FloatArray, boxes_xyxy: Matrix, outlined: npt.NDArray[np.bool_], scale: float
) -> FloatArray:
    """Return the rows `class x1 y1 x2 y2` with the boxes (n, 4) that they became, less those out of sight.

    `scale` is by how much all was enlarged; `outlined` (n,) tells which rows followed a polygon.
    """
    before = rows[:, 1:5].astype(np.float64) * scale
    keep = box_candidates(before, boxes_xyxy, min_area_ratio=np.where(outlined, 0.01, 0.10))
    return np.concatenate([rows[keep, :1], boxes_xyxy[keep].astype(np.float32)], axis=1)


def resample_polygon(polygon: FloatArray, count: int = POLYGON_POINTS) -> Matrix:
    """Return `count` points spread evenly over the corners' numbering of the closed polygon (k, 2)."""
    closed = np.concatenate([polygon, polygon[:1]])
    places = np.linspace(0, len(closed) - 1, count)
    corners = np.arange(len(closed))
    return np.stack([np.interp(places, corners, closed[:, axis]) for axis in (0, 1)], axis=1)


def _map_boxes(boxes_xyxy: FloatArray, matrix: Matrix, out_hw: tuple[int, int]) -> Matrix:
    corners = boxes_xyxy[:, [0, 1, 2, 3, 0, 3, 2, 1]].astype(np.float64).reshape(-1, 2)
    mapped = map_points(corners, matrix).reshape(-1, 4, 2)
    boxes = np.concatenate([mapped.min(axis=1), mapped.max(axis=1)], axis=1)
    boxes[:, [0, 2]] = boxes[:, [0, 2]].clip(0, out_hw[1])
    boxes[:, [1, 3]] = boxes[:, [1, 3]].clip(0, out_hw[0])
    return boxes


def _map_polygon(polygon: FloatArray, matrix: Matrix, out_hw: tuple[int, int]) -> Matrix:
    points = map_points(resample_polygon(polygon), matrix)
    return points_to_box_xyxy(points, out_hw)


def xywh_norm_to_xyxy_px(
    rows: FloatArray,
    scale_wh: tuple[float, float] | tuple[FloatArray, FloatArray],
    offset_xy: tuple[float, float] | tuple[FloatArray, FloatArray],
) -> FloatArray:
    """Turn rows `class x y w h` (normalised) into `class x1 y1 x2 y2` in pixels, moved by an offset.

    Scale and offset are the same for all rows, or arrays with one for each.
    """
    result = rows.copy()
    for axis in (0, 1):
        centre, size = rows[:, 1 + axis], rows[:, 3 + axis]
        result[:, 1 + axis] = scale_wh[axis] * (centre - size / 2) + offset_xy[axis]
        result[:, 3 + axis] = scale_wh[axis] * (centre + size / 2) + offset_xy[axis]
    return result


def xyxy_px_to_xywh_norm(rows: FloatArray, hw: tuple[int, int], margin: float = 1e-3) -> FloatArray:
    """Turn rows `class x1 y1 x2 y2` in pixels into `class x y w h`, clipped to the side less a margin."""
    result = rows.copy()
    for axis, side in ((0, hw[1]), (1, hw[0])):
        low = rows[:, 1 + axis].clip(0, side - margin)
        high = rows[:, 3 + axis].clip(0, side - margin)
        result[:, 1 + axis] = (low + high) / 2 / side
        result[:, 3 + axis] = (high - low) / side
    return result
