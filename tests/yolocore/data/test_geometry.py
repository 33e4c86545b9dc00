"""Geometry of labels: properties that hold for any draw."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolocore.data.geometry import (
    PerspectiveDraw,
    draw_perspective,
    map_labels,
    map_points,
    perspective_matrix,
    resample_polygon,
    xywh_norm_to_xyxy_px,
    xyxy_px_to_xywh_norm,
)

SIDE = 100


def test_doing_nothing_is_the_identity() -> None:
    matrix = perspective_matrix(PerspectiveDraw(), (40, 60), (40, 60))
    np.testing.assert_array_equal(matrix, np.eye(3))


def test_the_centre_goes_where_the_draw_says() -> None:
    draw = PerspectiveDraw(angle_deg=33, scale=0.7, shear_x_deg=4, translate_x=0.6, translate_y=0.4)
    matrix = perspective_matrix(draw, (200, 100), (80, 50))
    np.testing.assert_allclose(map_points(np.array([[50.0, 100.0]]), matrix), [[30, 32]])


def test_rotation_is_counter_clockwise_as_seen() -> None:
    matrix = perspective_matrix(PerspectiveDraw(angle_deg=90), (SIDE, SIDE), (SIDE, SIDE))
    np.testing.assert_allclose(map_points(np.array([[100.0, 50.0]]), matrix), [[50, 0]], atol=1e-9)


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_draws_stay_in_their_bounds(seed: int) -> None:
    draw = draw_perspective(
        np.random.default_rng(seed), degrees=10, translate=0.1, scale=0.5, shear=5, perspective=0.001
    )
    assert abs(draw.angle_deg) <= 10
    assert 0.5 <= draw.scale <= 1.5
    assert max(abs(draw.shear_x_deg), abs(draw.shear_y_deg)) <= 5
    assert max(abs(draw.translate_x - 0.5), abs(draw.translate_y - 0.5)) <= 0.1
    assert max(abs(draw.perspective_x), abs(draw.perspective_y)) <= 0.001


@settings(deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_mapped_boxes_lie_inside_and_are_large_enough(seed: int, outlined: bool) -> None:
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, SIDE, (20, 2, 2)), axis=1).reshape(20, 4)
    rows = np.concatenate([np.arange(20)[:, None], corners], axis=1).astype(np.float32)
    polygons = [row[[1, 2, 3, 2, 3, 4, 1, 4]].reshape(4, 2) for row in rows] if outlined else None
    draw = draw_perspective(rng, degrees=30, translate=0.3, scale=0.9, shear=10, perspective=0.001)
    matrix = perspective_matrix(draw, (SIDE, SIDE), (64, 80))
    mapped = map_labels(rows, polygons, matrix, (64, 80), draw.scale)
    assert mapped.dtype == np.float32
    assert set(mapped[:, 0]) <= set(range(20))
    assert (mapped[:, 1:] >= 0).all()
    assert (mapped[:, [1, 3]] <= 80).all()
    assert (mapped[:, [2, 4]] <= 64).all()
    assert (mapped[:, 3:] - mapped[:, 1:3] > 2).all()


def test_a_row_follows_its_own_polygon_and_others_their_box() -> None:
    rows = np.array([[0, 20, 20, 80, 80], [1, 20, 20, 80, 80]], dtype=np.float32)
    diamond = np.array([[50, 20], [80, 50], [50, 80], [20, 50]], dtype=np.float32)
    matrix = perspective_matrix(PerspectiveDraw(angle_deg=45), (SIDE, SIDE), (SIDE, SIDE))
    mapped = map_labels(rows, [diamond, None], matrix, (SIDE, SIDE), 1.0)
    turned = 30 / np.sqrt(2)
    np.testing.assert_allclose(mapped[0, 1:], [50 - turned, 50 - turned, 50 + turned, 50 + turned], atol=0.1)
    np.testing.assert_allclose(
        mapped[1, 1:], np.clip([50 - 42.43, 50 - 42.43, 50 + 42.43, 50 + 42.43], 0, 100), atol=0.1
    )


def test_a_polygon_out_of_sight_takes_its_row_along() -> None:
    rows = np.array([[0, 0, 0, 10, 10]], dtype=np.float32)
    polygon = np.array([[0, 0], [10, 0], [10, 10]], dtype=np.float32)
    matrix = perspective_matrix(PerspectiveDraw(translate_x=-2), (SIDE, SIDE), (SIDE, SIDE))
    assert len(map_labels(rows, [polygon], matrix, (SIDE, SIDE), 1.0)) == 0


def test_no_labels_stay_no_labels() -> None:
    empty = np.zeros((0, 5), dtype=np.float32)
    assert map_labels(empty, [], np.eye(3), (SIDE, SIDE), 1.0).shape == (0, 5)
    assert xyxy_px_to_xywh_norm(empty, (SIDE, SIDE)).shape == (0, 5)


def test_resampling_keeps_corners_and_closes_the_polygon() -> None:
    square = np.array([[0, 0], [4, 0], [4, 4], [0, 4]], dtype=np.float32)
    points = resample_polygon(square, 9)
    np.testing.assert_allclose(points[::2], [*square, square[0]])
    np.testing.assert_allclose(points[1], [2, 0])


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_units_go_there_and_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.uniform(0.05, 0.3, (5, 2))
    rows = np.concatenate([np.ones((5, 1)), rng.uniform(0.2, 0.8, (5, 2)), sizes], axis=1).astype(np.float32)
    pixels = xywh_norm_to_xyxy_px(rows, (80, 60), (0.0, 0.0))
    back = xyxy_px_to_xywh_norm(pixels, (60, 80))
    np.testing.assert_allclose(back, rows, atol=1e-5)
    assert back[0, 0] == pytest.approx(1)
