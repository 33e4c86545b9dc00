"""Extents of the points of a polygon."""

from __future__ import annotations

import numpy as np

from yolocore.ops.polygons import points_to_box_xyxy

SQUARE = np.array([[0, 0], [10, 0], [10, 10], [0, 10]], np.float32)


def test_points_outside_the_picture_do_not_count() -> None:
    np.testing.assert_allclose(points_to_box_xyxy(SQUARE, (20, 10)), [0, 0, 10, 10])
    np.testing.assert_allclose(points_to_box_xyxy(SQUARE, (20, 9)), [0, 0, 0, 10])
    np.testing.assert_allclose(points_to_box_xyxy(SQUARE + 50, (20, 9)), [0, 0, 0, 0])
