"""Polygons of an object and the boxes around them; numpy only, for label readers and augmentation.

It must not know about images, classes or label files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.floating[Any]]


def polygons_to_boxes_xywh(polygons: Sequence[Points]) -> Points:
    """Return (n, 4) centre-and-size extents of n polygons of shape (points, 2), in the polygons' unit."""
    if not polygons:
        return np.zeros((0, 4), np.float32)
    low = np.stack([polygon.min(0) for polygon in polygons])
    high = np.stack([polygon.max(0) for polygon in polygons])
    return np.concatenate(((low + high) / 2, high - low), 1)


def polygon_to_box_xyxy(points_px: Points, *, width: float, height: float) -> Points:
    """Return the (4,) pixel extents of the points inside the picture; zeros if none is inside."""
    x, y = points_px[:, 0], points_px[:, 1]
    inside = (x >= 0) & (y >= 0) & (x <= width) & (y <= height)
    if not inside.any():
        return np.zeros(4, points_px.dtype)
    kept = points_px[inside]
    return np.concatenate((kept.min(0), kept.max(0)))


def resample_polygon(points: Points, num_points: int = 1000) -> Points:
    """Return (num_points, 2) points spread evenly by vertex number along a closed polygon (k, 2)."""
    closed = np.concatenate((points, points[:1]), 0)
    at = np.linspace(0, len(closed) - 1, num_points)
    vertex = np.arange(len(closed))
    return np.stack([np.interp(at, vertex, closed[:, axis]) for axis in (0, 1)], 1).astype(np.float32)
