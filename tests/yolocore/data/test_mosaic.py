"""The renderer: warping only what is in sight equals warping the whole canvas."""

from __future__ import annotations

import numpy as np
import pytest

from yolocore.data.axis_warp import keeps_axes
from yolocore.data.geometry import PerspectiveDraw, draw_perspective, perspective_matrix
from yolocore.data.mosaic import draw_mosaic, place_tiles, render, warp, whole
from yolocore.data.pixels import FILL
from yolocore.data.scratch import Scratch

SIDE = 64


def pictures(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    sizes = [(64, 48), (40, 64), (64, 64), (20, 64)]
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


@pytest.mark.parametrize("seed", range(12))
def test_the_visible_window_is_enough(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tiles = place_tiles(pictures(seed), draw_mosaic(rng, 0, 4, SIDE).centre_yx, SIDE)
    canvas_hw = (2 * SIDE, 2 * SIDE)
    canvas = render(tiles, canvas_hw, np.eye(3), canvas_hw)
    for number in range(12):
        tilt = 0.002 if number % 3 == 0 else 0
        draw = draw_perspective(rng, degrees=30, translate=0.4, scale=0.9, shear=9, perspective=tilt)
        matrix = perspective_matrix(draw, canvas_hw, (SIDE, SIDE))
        image = render(tiles, canvas_hw, matrix, (SIDE, SIDE))
        assert np.abs(image.astype(int) - warp(canvas, matrix, np.empty_like(image))).max() <= 2


@pytest.mark.parametrize("scale", [0.02, 0.3, 0.5, 0.93, 1.0, 1.1, 1.5, 1.98])
def test_an_upright_draw_is_the_warp_of_opencv_to_a_level(scale: float) -> None:
    rng = np.random.default_rng(int(100 * scale))
    tiles = place_tiles(pictures(7), draw_mosaic(rng, 0, 4, SIDE).centre_yx, SIDE)
    canvas_hw = (2 * SIDE, 2 * SIDE)
    canvas = render(tiles, canvas_hw, np.eye(3), canvas_hw)
    scratch, out = Scratch(), np.empty((SIDE, 2 * SIDE - 3, 3), np.uint8)
    for number in range(12):
        draw = PerspectiveDraw(
            scale=scale, translate_x=rng.uniform(-1, 2), translate_y=rng.uniform(-1, 2) * (number > 3)
        )
        matrix = perspective_matrix(draw, canvas_hw, (out.shape[0], out.shape[1]))
        assert keeps_axes(matrix)
        image = render(tiles, canvas_hw, matrix, (out.shape[0], out.shape[1]), out, scratch)
        assert image is out
        off = np.abs(image.astype(int) - warp(canvas, matrix, np.empty_like(out)))
        assert off.max() <= 1 and off.mean() < 0.03


def test_a_move_by_whole_pixels_changes_none() -> None:
    picture = pictures(3)[2]
    matrix = np.array([[1.0, 0, 5], [0, 1, -7], [0, 0, 1]])
    image = render([whole(picture)], (SIDE, SIDE), matrix, (SIDE, SIDE))
    np.testing.assert_array_equal(image[:-7, 5:], picture[7:, :-5])
    assert (image[-7:] == FILL).all() and (image[:, :5] == FILL).all()


def test_nothing_in_sight_is_grey() -> None:
    picture = pictures(0)[2]
    matrix = perspective_matrix(PerspectiveDraw(translate_x=9), (SIDE, SIDE), (SIDE, SIDE))
    assert (render([whole(picture)], (SIDE, SIDE), matrix, (SIDE, SIDE)) == FILL).all()


def test_the_result_is_never_a_view_of_a_picture() -> None:
    picture = pictures(1)[2]
    picture.setflags(write=False)
    for matrix in (np.eye(3), perspective_matrix(PerspectiveDraw(scale=1.4), (SIDE, SIDE), (SIDE, SIDE))):
        image = render([whole(picture)], (SIDE, SIDE), matrix, (SIDE, SIDE))
        assert image.flags.writeable
        assert not np.shares_memory(image, picture)


def test_tiles_meet_in_the_centre_and_are_cut_at_the_canvas() -> None:
    tiles = place_tiles(pictures(2), (70, 40), SIDE)
    assert [tile.region for tile in tiles] == [
        (0, 6, 40, 70),
        (40, 30, 104, 70),
        (0, 70, 40, 128),
        (40, 70, 104, 90),
    ]


def test_a_mosaic_draw_holds_its_own_picture_and_three_others() -> None:
    centres = set()
    for seed in range(50):
        draw = draw_mosaic(np.random.default_rng(seed), 7, 100, SIDE)
        assert 7 in draw.indices
        assert all(SIDE // 2 <= part <= 3 * SIDE // 2 for part in draw.centre_yx)
        centres.add(draw.centre_yx)
    assert len(centres) > 40
