"""Flips, mixup and copy-paste where the golden cases do not reach."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from yolocore.data.augment import (
    AugmentConfig,
    HsvJitter,
    apply_copy_paste,
    apply_mixup,
    draw_copy_paste,
    draw_flips,
    draw_hsv,
    draw_mixup,
    flip_in_place,
)


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)


ROWS = np.array([[1, 0.25, 0.75, 0.1, 0.2]], dtype=np.float32)


@pytest.mark.parametrize(
    ("up_down", "left_right", "x", "y"),
    [
        (False, False, 0.25, 0.75),
        (True, False, 0.25, 0.25),
        (False, True, 0.75, 0.75),
        (True, True, 0.75, 0.25),
    ],
)
def test_flips_move_pixels_and_rows_alike(up_down: bool, left_right: bool, x: float, y: float) -> None:
    image = picture().copy()
    rows = flip_in_place(image, ROWS, up_down=up_down, left_right=left_right)
    expected = picture()[:: -1 if up_down else 1, :: -1 if left_right else 1]
    np.testing.assert_array_equal(image, expected)
    np.testing.assert_allclose(rows, [[1, x, y, 0.1, 0.2]])
    np.testing.assert_array_equal(ROWS[0, 1:3], np.float32([0.25, 0.75]))


def test_probabilities_of_zero_and_one_are_certain() -> None:
    rng = np.random.default_rng(0)
    assert all(draw_flips(rng, 0.0, 1.0) == (False, True) for _ in range(100))


def test_unit_factors_keep_a_grey_picture() -> None:
    grey = np.full((4, 4, 3), 93, dtype=np.uint8)
    HsvJitter((1.0, 1.0, 1.0)).apply(grey, grey)
    assert (grey == 93).all()
    assert draw_hsv(np.random.default_rng(0), 0, 0, 0) == (1.0, 1.0, 1.0)
    assert not AugmentConfig(hsv_h=0, hsv_s=0, hsv_v=0).colours


def test_colours_are_looked_up_in_hsv() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 41, 3), dtype=np.uint8)
    image.setflags(write=False)
    for factors in [draw_hsv(rng, 0.015, 0.7, 0.4) for _ in range(50)] + [(1.4, 0.5, 1.4), (1.0, 4 / 3, 2.5)]:
        hue, saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_BGR2HSV).astype(np.float64))
        changed = [(hue * factors[0]) % 180, (saturation * factors[1]).clip(max=255)]
        hsv = cv2.merge([*changed, (value * factors[2]).clip(max=255)]).astype(np.uint8)
        frame = np.zeros_like(image)
        HsvJitter(factors).apply(image, frame)
        np.testing.assert_array_equal(frame, cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


@pytest.mark.parametrize(
    ("up_down", "left_right"), [(False, False), (True, False), (False, True), (True, True)]
)
@pytest.mark.parametrize("hw", [(12, 16), (33, 101), (64, 64)])
def test_a_flip_in_place_is_a_flip(hw: tuple[int, int], up_down: bool, left_right: bool) -> None:
    image = np.random.default_rng(0).integers(0, 256, (2, *hw, 3), dtype=np.uint8)
    step = -1 if up_down else 1, -1 if left_right else 1
    expected, other = image[1, :: step[0], :: step[1]].copy(), image[0].copy()
    flip_in_place(image[1], ROWS, up_down=up_down, left_right=left_right)
    np.testing.assert_array_equal(image[1], expected)
    np.testing.assert_array_equal(image[0], other)


def test_mixup_is_exact_double_arithmetic() -> None:
    for seed in range(5):
        ratio = draw_mixup(np.random.default_rng(seed))
        assert 0 < ratio < 1
        first, second = picture(seed), picture(seed + 9)
        expected = (first * np.float64(ratio) + second * (1 - np.float64(ratio))).astype(np.uint8)
        np.testing.assert_array_equal(apply_mixup(first, second, ratio), expected)


def test_copies_are_drawn_without_repetition() -> None:
    chosen = draw_copy_paste(np.random.default_rng(0), 10, 0.55)
    assert len(chosen) == len(set(chosen)) == 6
    assert draw_copy_paste(np.random.default_rng(0), 0, 1.0) == []


def test_rows_without_a_polygon_and_covering_copies_are_passed_over() -> None:
    rows = np.array([[0, 1, 1, 5, 5], [1, 6, 2, 10, 6]], dtype=np.float32)
    middle = np.array([[6, 2], [10, 2], [10, 6], [6, 6]], dtype=np.float32)
    image, new_rows, polygons = apply_copy_paste(picture(), rows, [None, middle], [0, 1])
    np.testing.assert_array_equal(image, picture())
    np.testing.assert_array_equal(new_rows, rows)
    assert len(polygons) == 2


def test_a_copy_is_the_mirror_of_its_object() -> None:
    rows = np.array([[3, 1, 1, 5, 5]], dtype=np.float32)
    corner = np.array([[1, 1], [4, 1], [4, 4], [1, 4]], dtype=np.float32)
    image, new_rows, polygons = apply_copy_paste(picture(), rows, [corner], [0])
    np.testing.assert_array_equal(new_rows[1], [3, 11, 1, 15, 5])
    assert polygons[1] is not None
    np.testing.assert_array_equal(polygons[1][:, 0], 16 - corner[:, 0])
    np.testing.assert_array_equal(image[1:5, 11:15], picture()[1:5, 1:5][:, ::-1])
    np.testing.assert_array_equal(image[:, :11], picture()[:, :11])
