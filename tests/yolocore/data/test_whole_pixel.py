"""The whole-pixel renderer: the draws of the exact one, labels that fit its pixels to half a pixel."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.yolocore.data.conftest import MakeSamples
from yolocore.data.augment import AugmentConfig
from yolocore.data.dataset import TrainSamples
from yolocore.data.geometry import draw_perspective, map_labels, perspective_matrix
from yolocore.data.images import ImageStore
from yolocore.data.mosaic import Tile, draw_mosaic, place_tiles, render
from yolocore.data.pixels import FILL
from yolocore.data.rect import RectPlan
from yolocore.data.whole_pixel import (
    MARGIN,
    can_snap,
    map_snapped_labels,
    output_of,
    paint,
    snap_tiles,
)

NO_COLOUR = AugmentConfig(hsv_h=0, hsv_s=0, hsv_v=0)


def drawn(seed: int, side: int, scale: float) -> tuple[list[Tile], np.ndarray, float]:
    """Return four tiles of smooth pictures and a matrix that moves and scales."""
    rng = np.random.default_rng(seed)
    sizes = [(side, int(rng.integers(2, side + 1)))[:: int(rng.integers(0, 2)) * 2 - 1] for _ in range(4)]
    images = [cv2.GaussianBlur(rng.integers(0, 256, (*hw, 3), dtype=np.uint8), (0, 0), 4) for hw in sizes]
    tiles = place_tiles(images, draw_mosaic(rng, 0, 4, side).centre_yx, side)
    draw = draw_perspective(rng, degrees=0, translate=0.3, scale=scale, shear=0, perspective=0)
    return tiles, perspective_matrix(draw, (2 * side, 2 * side), (side, side)), draw.scale


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32), st.sampled_from([32, 64, 97]), st.sampled_from([0.0, 0.5, 0.95]))
def test_labels_lie_within_half_a_pixel(seed: int, side: int, scale: float) -> None:
    tiles, matrix, drawn_scale = drawn(seed, side, scale)
    rng = np.random.default_rng(seed + 1)
    rows, counts, polygons = [], [], []
    for number, tile in enumerate(tiles):
        x1, y1, x2, y2 = tile.region
        for _ in range(3):
            xs, ys = np.sort(rng.uniform(x1, max(x2, x1), 2)), np.sort(rng.uniform(y1, max(y2, y1), 2))
            rows.append([3 * number + len(rows), xs[0], ys[0], xs[1], ys[1]])
            outline = np.float32([[xs[0], ys[0]], [xs[1], ys[0]], [xs[1], ys[1]], [xs[0], ys[1]]])
            polygons.append(outline if rng.random() < 0.3 else None)
        counts.append(3)
    table = np.array(rows, dtype=np.float32)
    snapped = snap_tiles(tiles, matrix, (side, side))
    for outlines in (None, polygons):
        exact = map_labels(table, outlines, matrix, (side, side), drawn_scale)
        fast = map_snapped_labels(table, counts, outlines, snapped, (side, side), drawn_scale)
        both = sorted(set(exact[:, 0]) & set(fast[:, 0]))
        one, other = (part[np.isin(part[:, 0], both)] for part in (exact, fast))
        if outlines is None:
            assert np.abs(one - other).max(initial=0) <= 0.5 + 1e-4
        # Only rows at the edge of what is kept may be kept by one and not by the other.
        for part, rest in ((exact, fast), (fast, exact)):
            for row in part[~np.isin(part[:, 0], rest[:, 0])]:
                before = table[table[:, 0] == row[0]][0]
                area = (before[3] - before[1]) * (before[4] - before[2]) * drawn_scale**2
                w, h = row[3] - row[1], row[4] - row[2]
                assert min(w, h) < 3.1 or (w - 1) * (h - 1) < 0.11 * area or outlines is not None


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32))
def test_pixels_are_where_the_labels_say(seed: int) -> None:
    side = 96
    rng = np.random.default_rng(seed)
    matrix = perspective_matrix(
        draw_perspective(rng, degrees=0, translate=0.2, scale=0.5, shear=0, perspective=0),
        (2 * side, 2 * side),
        (side, side),
    )
    layout = draw_mosaic(rng, 0, 4, side)
    images, rows = [], []
    for _ in range(4):
        image = np.zeros((side, side, 3), np.uint8)
        x, y, w, h = (int(v) for v in rng.integers(10, 40, 4))
        image[y : y + h, x : x + w] = 255
        images.append(image)
        rows.append((x, y, x + w, y + h))
    tiles = place_tiles(images, layout.centre_yx, side)
    placed = [
        np.float32([[n, x1 + t.offset_xy[0], y1 + t.offset_xy[1], x2 + t.offset_xy[0], y2 + t.offset_xy[1]]])
        for n, (t, (x1, y1, x2, y2)) in enumerate(zip(tiles, rows, strict=True))
    ]
    table = np.concatenate(placed).clip(0, 2 * side)
    snapped = snap_tiles(tiles, matrix, (side, side))
    canvas = np.zeros((side + 2 * MARGIN, side + 2 * MARGIN, 3), np.uint8)
    paint(snapped, canvas)
    white = output_of(canvas)[..., 0] / 255.0
    for tile, row in zip(snapped, table, strict=True):
        kept = map_snapped_labels(row[None], [1], None, [tile], (side, side), 1e-3)
        if len(kept) == 0:
            continue
        _, x1, y1, x2, y2 = kept[0]
        a, b, c, d = (round(float(v)) for v in (x1, y1, x2, y2))
        assert white[b + 2 : d - 2, a + 2 : c - 2].min(initial=1) > 0.99
        # The ramps of both edges sum to the width; a smaller picture leaves some of them out.
        if matrix[0, 0] > 1 and c - a > 8 and d - b > 8 and a > 4 and c < side - 4:
            line = white[(b + d) // 2, a - 3 : c + 3]
            assert line.sum() == pytest.approx(x2 - x1, abs=0.6)


def test_doing_nothing_draws_the_canvas_of_the_exact_renderer() -> None:
    tiles, _, _ = drawn(3, 64, 0)
    canvas = np.zeros((128 + 2 * MARGIN, 128 + 2 * MARGIN, 3), np.uint8)
    paint(snap_tiles(tiles, np.eye(3), (128, 128)), canvas)
    np.testing.assert_array_equal(output_of(canvas), render(tiles, (128, 128), np.eye(3), (128, 128)))


@pytest.mark.parametrize("seed", range(20))
def test_pixels_are_nearly_those_of_the_warp(seed: int) -> None:
    side = 160
    tiles, matrix, _ = drawn(seed, side, 0.5)
    canvas = np.zeros((side + 2 * MARGIN, side + 2 * MARGIN, 3), np.uint8)
    snapped = snap_tiles(tiles, matrix, (side, side))
    paint(snapped, canvas)
    image = output_of(canvas)
    exact = render(tiles, (2 * side, 2 * side), matrix, (side, side))
    assert np.abs(image.astype(int) - exact).mean() < 4
    rest = np.ones((side, side), dtype=bool)
    for _, x, y in snapped:
        inside = slice(max(y.target[0], 0), y.target[1]), slice(max(x.target[0], 0), x.target[1])
        assert rest[inside].all()  # none overlap
        rest[inside] = False
    assert (image[rest] == FILL).all()


def test_what_turns_or_tilts_is_left_to_the_exact_renderer() -> None:
    rng = np.random.default_rng(0)
    sides = (100, 100)
    for degrees, shear, perspective in ((5, 0, 0), (0, 5, 0), (0, 0, 0.001)):
        draw = draw_perspective(
            rng, degrees=degrees, translate=0.1, scale=0.5, shear=shear, perspective=perspective
        )
        assert not can_snap(perspective_matrix(draw, sides, sides))


@pytest.mark.parametrize("polygons", [False, True])
@pytest.mark.parametrize(
    "config",
    [
        AugmentConfig(),
        AugmentConfig(degrees=10, mixup=0.5, flipud=0.5),
        AugmentConfig(mosaic=0.5, mixup=0.5, copy_paste=0.5, flipud=0.5),
        AugmentConfig(hsv_h=0, hsv_s=0, hsv_v=0, mixup=1),
    ],
)
def test_items_follow_the_draws_of_the_exact_renderer(
    make_samples: MakeSamples, config: AugmentConfig, polygons: bool
) -> None:
    samples = make_samples(5, polygons=polygons)
    store = ImageStore(samples, 64)
    exact = TrainSamples(samples, store, 64, config, seed=2)
    fast = TrainSamples(samples, store, 64, config, seed=2, renderer="fast")
    for position in range(12):
        one, other = exact.item(1, position, position % 5), fast.item(1, position, position % 5)
        again = fast.item(1, position, position % 5)
        assert one.path == other.path
        np.testing.assert_array_equal(other.image, again.image)
        np.testing.assert_array_equal(other.rows, again.rows)
        assert other.rows.dtype == np.float32
        assert abs(len(one.rows) - len(other.rows)) <= 3
        if len(one.rows) == len(other.rows):
            assert np.abs(one.rows - other.rows).max(initial=0) * 64 <= (6 if polygons else 1.001)
        if config.degrees:
            assert np.abs(one.image.astype(int) - other.image).max() <= 8
            np.testing.assert_array_equal(one.rows, other.rows)


def test_without_augmentation_both_renderers_agree(make_samples: MakeSamples) -> None:
    samples = make_samples(4)
    plain = replace(NO_COLOUR, translate=0, scale=0, fliplr=0, mosaic=0)
    plan = RectPlan(order=(2, 0, 3, 1), shapes_hw=((64, 96), (128, 64)), batch_size=2)
    for rect in (None, plan):
        items = [
            TrainSamples(samples, ImageStore(samples, 64), 64, plain, 0, rect, renderer).item(0, 1, 2)
            for renderer in ("exact", "fast")
        ]
        np.testing.assert_array_equal(items[0].image, items[1].image)
        np.testing.assert_allclose(items[0].rows, items[1].rows, atol=1e-6)
