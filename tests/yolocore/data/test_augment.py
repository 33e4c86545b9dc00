"""Flips, mixup and copy-paste where the golden cases do not reach."""

from __future__ import annotations

import numpy as np
import pytest

from yolocore.data.augment import (
    AugmentConfig,
    HsvJitter,
    apply_copy_paste,
    apply_flips,
    apply_hsv,
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
    image, rows = apply_flips(picture(), ROWS, up_down=up_down, left_right=left_right)
    expected = picture()[:: -1 if up_down else 1, :: -1 if left_right else 1]
    np.testing.assert_array_equal(image, expected)
    np.testing.assert_allclose(rows, [[1, x, y, 0.1, 0.2]])
    np.testing.assert_array_equal(ROWS[0, 1:3], np.float32([0.25, 0.75]))


def test_probabilities_of_zero_and_one_are_certain() -> None:
    rng = np.random.default_rng(0)
    assert all(draw_flips(rng, 0.0, 1.0) == (False, True) for _ in range(100))


def test_unit_factors_keep_a_grey_picture() -> None:
    grey = np.full((4, 4, 3), 93, dtype=np.uint8)
    np.testing.assert_array_equal(apply_hsv(grey, (1.0, 1.0, 1.0)), grey)
    assert draw_hsv(np.random.default_rng(0), 0, 0, 0) == (1.0, 1.0, 1.0)
    assert not AugmentConfig(hsv_h=0, hsv_s=0, hsv_v=0).colours


def test_hsv_leaves_its_argument_alone() -> None:
    image = picture()
    image.setflags(write=False)
    apply_hsv(image, (1.01, 0.5, 1.4))
    np.testing.assert_array_equal(image, picture())


def test_colours_without_a_table_are_those_of_the_table() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (160, 161, 3), dtype=np.uint8)
    drawn = [draw_hsv(rng, 0.015, 0.7, 0.4) for _ in range(150)]
    nearly_whole = [(0.99999, 1.0, 1.0), (1.0, 0.5, 1.4), (0.985, 0.3, 0.6), (1.015, 1.7, 1.4)]
    means = []
    for factors in drawn + nearly_whole:
        frame, spare = np.zeros((160, 161, 3), np.uint8), np.empty((200, 170, 3), np.uint8)[:160, :161]
        HsvJitter(factors).apply(image, spare, frame)
        off = np.abs(frame[..., ::-1].astype(int) - apply_hsv(image, factors))
        assert off.max() <= 8
        means.append(off.mean())
    assert max(means) <= 1
    assert np.mean(means) < 0.01


def test_a_grey_level_is_jittered_alone_as_in_a_picture() -> None:
    rng = np.random.default_rng(1)
    for level in range(0, 256, 3):
        factors = draw_hsv(rng, 0.015, 0.7, 0.4)
        grey = np.full((1, 1, 3), level, np.uint8)
        assert apply_hsv(grey, factors).ravel().tolist() == [HsvJitter(factors).grey(level)] * 3


@pytest.mark.parametrize(
    ("up_down", "left_right"), [(False, False), (True, False), (False, True), (True, True)]
)
@pytest.mark.parametrize("hw", [(12, 16), (33, 101), (64, 64)])
def test_a_flip_in_place_is_a_flip(hw: tuple[int, int], up_down: bool, left_right: bool) -> None:
    image = np.random.default_rng(0).integers(0, 256, (2, *hw, 3), dtype=np.uint8)
    expected, expected_rows = apply_flips(image[1], ROWS, up_down=up_down, left_right=left_right)
    expected, other = expected.copy(), image[0].copy()
    rows = flip_in_place(image[1], ROWS, up_down=up_down, left_right=left_right)
    np.testing.assert_array_equal(image[1], expected)
    np.testing.assert_array_equal(image[0], other)
    np.testing.assert_array_equal(rows, expected_rows)


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
