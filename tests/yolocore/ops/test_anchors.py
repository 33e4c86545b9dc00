"""The fit of anchors to label sizes on numbers worked out by hand, and what evolution makes of sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from yolocore.ops import anchors as subject
from yolocore.ops.anchors import anchor_fit, anchor_fitness, evolve_anchors, side_ratios, telling_sizes

ANCHORS = np.array([[10, 10], [40, 20]], np.float32)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def some_sizes(count: int, typical_px: float = 40.0) -> NDArray[np.float32]:
    return np.exp(rng(count).normal(np.log(typical_px), 0.7, (count, 2))).astype(np.float32)


def test_the_worse_side_counts() -> None:
    sizes = np.array([[10, 10], [20, 5], [80, 10], [0, 10]], np.float32)
    expected = np.array([[1, 0.25], [0.5, 0.25], [0.125, 0.5], [0, 0]])
    assert np.allclose(side_ratios(sizes, ANCHORS), expected)


def test_a_ratio_at_the_threshold_does_not_match() -> None:
    sizes = np.array([[10, 10], [20, 5], [80, 10], [400, 400]], np.float32)
    fit = anchor_fit(sizes, ANCHORS, 4.0)
    assert (fit.recall, fit.per_label) == (0.75, 0.75)
    assert anchor_fit(sizes, ANCHORS, 4.1).per_label == 1.25


@pytest.mark.parametrize(("num_bad", "good"), [(0, True), (1, True), (2, False)])
def test_a_fit_is_good_above_98_hundredths(num_bad: int, good: bool) -> None:
    sizes = np.full((100, 2), 10, np.float32)
    sizes[:num_bad] = 1000
    assert anchor_fit(sizes, ANCHORS, 4.0).is_good is good


def test_fitness_is_the_mean_of_the_best_ratios_that_match() -> None:
    sizes = np.array([[10, 10], [20, 5], [80, 10], [400, 400], [40, 40]], np.float32)
    assert anchor_fitness(sizes, ANCHORS, 4.0) == pytest.approx((1 + 0.5 + 0.5 + 0 + 0.5) / 5)


def test_fitness_of_many_labels_is_that_of_all_blocks() -> None:
    sizes = some_sizes(2 * subject.BLOCK + 7)
    best = side_ratios(sizes, ANCHORS).max(1)
    expected = np.where(best > 0.25, best, 0).mean(dtype=np.float64)
    assert anchor_fitness(sizes, ANCHORS, 4.0) == pytest.approx(expected, rel=1e-6)


def test_labels_that_say_nothing_about_anchors() -> None:
    kept = [[2, 1], [0.5, 30], [40, 50]]
    dropped = [[1.9, 1.9], [0, 30], [30, 0], [np.nan, 30], [30, np.inf], [30, 0.001], [-3, 30]]
    sizes = np.array([*kept, *dropped], np.float32)
    assert telling_sizes(sizes).tolist() == np.array(kept, np.float32).tolist()


def test_evolution_improves_on_the_centres_it_begins_with() -> None:
    sizes = some_sizes(300)
    fitness = [
        anchor_fitness(sizes, evolve_anchors(sizes, 9, 640, 4.0, rng(), generations), 4.0)
        for generations in (0, 100, 1000)
    ]
    assert fitness[0] < fitness[1] < fitness[2]
    assert fitness[2] > fitness[0] + 0.01


def test_clusters_are_found() -> None:
    """Labels of three kinds of very different shape: each gets an anchor close to its mean."""
    kinds = np.array([[10, 12], [30, 90], [300, 100]])
    sizes = (kinds[:, None] * rng().uniform(0.95, 1.05, (3, 50, 2))).reshape(-1, 2).astype(np.float32)
    assert evolve_anchors(sizes, 3, 640, 4.0, rng()) == pytest.approx(kinds, rel=0.05)


def test_one_seed_gives_the_same_anchors_to_the_bit() -> None:
    sizes = some_sizes(200)
    first, again, other = (evolve_anchors(sizes, 9, 640, 4.0, rng(seed), 50) for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


def test_no_global_state_is_read_or_moved() -> None:
    sizes = some_sizes(200)
    np.random.seed(1)
    before = np.random.get_state(legacy=False)
    first = evolve_anchors(sizes, 9, 640, 4.0, rng(), 20)
    after = np.random.get_state(legacy=False)
    assert str(before) == str(after)
    np.random.seed(2)
    assert first.tobytes() == evolve_anchors(sizes, 9, 640, 4.0, rng(), 20).tobytes()


def test_more_labels_than_are_clustered(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = some_sizes(400)
    monkeypatch.setattr(subject, "MAX_CLUSTERED", 100)
    whole = anchor_fitness(sizes, evolve_anchors(sizes, 9, 640, 4.0, rng(), 300), 4.0)
    assert whole > 0.7


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param([[50, 60]], id="one label"),
        pytest.param([[50, 60]] * 40, id="all equal"),
        pytest.param([[0.1 + 50, 60 / 7]] * 1001, id="all equal and not exact in binary"),
        pytest.param([[50, 10 + i] for i in range(40)], id="one axis equal"),
        pytest.param([[50, 60], [70, 80]] * 20, id="fewer kinds than centres"),
        pytest.param([[10 * i + 10, 300] for i in range(8)], id="fewer labels than centres"),
        pytest.param([[1, 1]] * 40, id="all too small"),
        pytest.param([[0, 0], [np.nan, 5], [np.inf, np.inf]], id="none usable"),
        pytest.param(np.zeros((0, 2)), id="no label"),
    ],
)
def test_degenerate_labels_give_random_sizes_in_bounds(sizes: Any) -> None:
    found = evolve_anchors(np.array(sizes, np.float32).reshape(-1, 2), 9, 320, 4.0, rng(), 0)
    assert found.shape == (9, 2)
    assert (found >= 2).all() and (found <= 320).all()
    assert (np.diff(found, axis=0) >= 0).all()


def test_random_sizes_move_towards_few_labels() -> None:
    sizes = np.array([[100, 120], [30, 40]], np.float32)
    start, end = (
        anchor_fitness(sizes, evolve_anchors(sizes, 9, 320, 4.0, rng(), generations), 4.0)
        for generations in (0, 500)
    )
    assert end > max(start, 0.9)


def test_unusable_sizes_do_not_draw_anchors() -> None:
    sizes = some_sizes(100)
    bad = np.array([[0, 600], [600, 0], [np.nan, 600], [np.inf, 600]] * 50, np.float32)
    found = evolve_anchors(np.concatenate([sizes, bad]), 9, 640, 4.0, rng(), 50)
    assert found.tobytes() == evolve_anchors(sizes, 9, 640, 4.0, rng(), 50).tobytes()


def test_mutations_change_something_within_bounds() -> None:
    generator = rng()
    factors = np.stack([subject._mutation((1, 2), generator) for _ in range(2000)])
    assert (factors != 1).any((1, 2)).all()
    assert factors.min() >= 0.3 and factors.max() <= 3.0
    assert 0.8 < (factors != 1).mean() < 1.0


def test_sorted_by_area() -> None:
    found = evolve_anchors(some_sizes(300), 12, 640, 4.0, rng(), 100)
    assert (np.diff(found.prod(1)) >= 0).all()
