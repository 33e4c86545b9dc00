"""Extents and resampling of polygons."""

from __future__ import annotations

import numpy as np

from yolocore.ops.polygons import polygon_to_box_xyxy, polygons_to_boxes_xywh, resample_polygon

SQUARE = np.array([[0, 0], [10, 0], [10, 10], [0, 10]], np.float32)


def test_extents_of_several_polygons() -> None:
    boxes = polygons_to_boxes_xywh([SQUARE, SQUARE[:2] + 5])
    np.testing.assert_allclose(boxes, [[5, 5, 10, 10], [10, 5, 10, 0]])
    assert polygons_to_boxes_xywh([]).shape == (0, 4)


def test_points_outside_the_picture_do_not_count() -> None:
    np.testing.assert_allclose(polygon_to_box_xyxy(SQUARE, width=9, height=20), [0, 0, 0, 10])
    np.testing.assert_allclose(polygon_to_box_xyxy(SQUARE + 50, width=9, height=20), [0, 0, 0, 0])


def test_resampling_closes_the_polygon_and_keeps_its_vertices() -> None:
    points = resample_polygon(SQUARE, 9)
    assert points.shape == (9, 2)
    np.testing.assert_allclose(points[::2], [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]])
    np.testing.assert_allclose(points[7], [0, 5])
