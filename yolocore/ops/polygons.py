"""The box around a polygon's points; numpy only, for augmentation.

It must not know about images, classes or label files.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", bound=np.floating[Any])


def points_to_box_xyxy(points_px: NDArray[Number], image_hw: tuple[int, int]) -> NDArray[Number]:
    """Return the (4,) extents of those of (n, 2) points that lie in the picture; zeros if none does."""
    x, y = points_px[:, 0], points_px[:, 1]
    inside = (x >= 0) & (y >= 0) & (x <= image_hw[1]) & (y <= image_hw[0])
    if not inside.any():
        return np.zeros(4, points_px.dtype)
    kept = points_px[inside]
    return np.concatenate((kept.min(0), kept.max(0)))
