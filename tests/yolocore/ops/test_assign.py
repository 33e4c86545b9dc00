"""Assignment against a slow restatement, and the rules that are easy to get wrong."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from yolocore.ops.assign import LevelMatches, assign_targets

ANCHORS = np.array([[[1.25, 1.6], [2.0, 3.75], [4.1, 2.9]], [[1.9, 3.8], [3.9, 2.8], [3.7, 7.4]]], np.float32)
SHAPES = [(12, 16), (6, 8)]


def random_targets(seed: int, n: int = 40) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    rows = np.zeros((n, 6), np.float32)
    rows[:, 0] = rng.integers(0, 3, n)
    rows[:, 1] = rng.integers(0, 5, n)
    rows[:, 2:4] = rng.random((n, 2))
    rows[: n // 4, 2:4] = rng.integers(0, 17, (n // 4, 2)) / 16  # on cell borders and on the map's border
    rows[:, 4:6] = rng.random((n, 2)) * 0.6 + 0.01
    return rows


def slowly(
    targets: NDArray[np.float32], anchors: NDArray[np.float32], ny: int, nx: int
) -> list[tuple[int, ...]]:
    """Return rows (image, class, anchor, gj, gi, target) of one level, one pair at a time."""
    size = np.array([nx, ny], np.float32)
    groups: list[list[tuple[int, ...]]] = [[], [], [], [], []]
    for anchor, wanted in enumerate(anchors):
        for index, target in enumerate(targets):
            centre, ratio = target[2:4] * size, target[4:6] * size / wanted
            if max(ratio.max(), (1 / ratio).max()) >= np.float32(4.0):
                continue
            rest = size - centre
            entered = [
                (0, 0.0, 0.0, True),
                (1, 0.5, 0.0, centre[0] % 1 < 0.5 and centre[0] > 1),
                (2, 0.0, 0.5, centre[1] % 1 < 0.5 and centre[1] > 1),
                (3, -0.5, 0.0, rest[0] % 1 < 0.5 and rest[0] > 1),
                (4, 0.0, -0.5, rest[1] % 1 < 0.5 and rest[1] > 1),
            ]
            for group, dx, dy, enters in entered:
                if enters:
                    gi = min(max(int(centre[0] - np.float32(dx)), 0), nx - 1)
                    gj = min(max(int(centre[1] - np.float32(dy)), 0), ny - 1)
                    groups[group].append((int(target[0]), int(target[1]), anchor, gj, gi, index))
    return [row for group in groups for row in group]


def rows_of(level: LevelMatches) -> list[tuple[int, ...]]:
    fields = (level.image, level.cls, level.anchor, level.gj, level.gi, level.target_index)
    return [tuple(int(value) for value in row) for row in zip(*fields, strict=True)]


@pytest.mark.parametrize("seed", range(8))
def test_same_rows_in_the_same_order_as_one_pair_at_a_time(seed: int) -> None:
    targets = random_targets(seed)
    for level, (ny, nx) in enumerate(SHAPES):
        matched = assign_targets(targets, ANCHORS, SHAPES, 4.0)[level]
        assert rows_of(matched) == slowly(targets, ANCHORS[level], ny, nx)
        size = np.array([nx, ny], np.float32)
        cell = np.stack((matched.gi, matched.gj), 1).astype(np.float32)
        np.testing.assert_array_equal(matched.box[:, :2], targets[matched.target_index, 2:4] * size - cell)
        np.testing.assert_array_equal(matched.box[:, 2:], targets[matched.target_index, 4:6] * size)
        np.testing.assert_array_equal(matched.anchor_wh, ANCHORS[level][matched.anchor])


def test_a_centre_on_a_whole_number_gives_five_rows_with_the_own_cell_twice_more() -> None:
    target = np.array([[0, 2, 4 / 16, 3 / 12, 1.25 / 16, 1.6 / 12]], np.float32)
    level = assign_targets(target, ANCHORS[:1, :1], SHAPES[:1], 4.0)[0]
    assert list(zip(level.gi.tolist(), level.gj.tolist(), strict=True)) == [
        (4, 3),
        (3, 3),
        (4, 2),
        (4, 3),
        (4, 3),
    ]
    assert level.winner.tolist() == [2, 1, 4]


def test_a_centre_on_the_far_border_is_clamped_before_the_offset_is_taken() -> None:
    target = np.array([[0, 0, 1.0, 1.0, 1.25 / 16, 1.6 / 12]], np.float32)
    level = assign_targets(target, ANCHORS[:1, :1], SHAPES[:1], 4.0)[0]
    assert (level.gi.max(), level.gj.max()) == (15, 11)
    np.testing.assert_array_equal(level.box[0, :2], [1.0, 1.0])


@pytest.mark.parametrize("seed", range(4))
def test_winner_is_the_last_row_of_each_cell(seed: int) -> None:
    for level in assign_targets(random_targets(seed), ANCHORS, SHAPES, 4.0):
        cells = list(zip(level.image, level.anchor, level.gj, level.gi, strict=True))
        last = {cell: row for row, cell in enumerate(cells)}
        assert sorted(level.winner.tolist()) == sorted(last.values())


def test_no_targets_and_no_fitting_anchor_give_empty_lists() -> None:
    for targets in (np.zeros((0, 6), np.float32), np.array([[0, 0, 0.5, 0.5, 0.0, 0.5]], np.float32)):
        for level in assign_targets(targets, ANCHORS, SHAPES, 4.0):
            assert len(level) == 0
            assert level.box.shape == (0, 4)
            assert level.winner.shape == (0,)


def test_the_limit_of_the_anchor_ratio_is_excluded() -> None:
    anchors = np.array([[[2.0, 2.0]]], np.float32)
    at_limit = np.array([[0, 0, 0.53, 0.53, 8 / 16, 2 / 16]], np.float32)
    assert len(assign_targets(at_limit, anchors, [(16, 16)], 4.0)[0]) == 0
    assert len(assign_targets(at_limit, anchors, [(16, 16)], 4.001)[0]) == 3


def test_double_targets_stay_double_and_are_not_changed() -> None:
    targets = random_targets(1).astype(np.float64)
    before = targets.copy()
    level = assign_targets(targets, ANCHORS, SHAPES, 4.0)[0]
    assert level.box.dtype == np.float64
    np.testing.assert_array_equal(targets, before)
    assert assign_targets(random_targets(1), ANCHORS, SHAPES, 4.0)[0].box.dtype == np.float32
