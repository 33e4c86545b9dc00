"""Figures of sets whose answer is known without computing."""

from __future__ import annotations

import numpy as np
import pytest

from yolocore.eval.metrics import Judged, average_precision, fitness, smooth, summarize


def judged(correct: list[bool], score: list[float], predicted: list[int], true: list[int]) -> Judged:
    verdicts = np.repeat(np.array(correct, np.bool_)[:, None], 10, 1).reshape(-1, 10)
    return Judged(verdicts, np.array(score), np.array(predicted, np.int64), np.array(true, np.int64))


def test_a_perfect_set_scores_one() -> None:
    metrics = summarize(judged([True] * 4, [0.9, 0.8, 0.7, 0.6], [0, 1, 0, 1], [0, 1, 0, 1]), 2)
    assert metrics.map50 == pytest.approx(0.995, abs=1e-9)  # 101 points: the last falls to the closing zero
    assert (metrics.precision, metrics.recall) == pytest.approx((1.0, 1.0))
    assert metrics.fitness == pytest.approx(fitness(metrics.map50, metrics.map50_95))


@pytest.mark.parametrize(
    "empty",
    [
        judged([], [], [], []),
        judged([False, False], [0.5, 0.4], [0, 1], []),
        judged([], [], [], [0, 1, 1]),
        judged([False], [0.5], [0], [0, 1]),
    ],
    ids=["nothing", "no labels", "no detections", "nothing correct"],
)
def test_empty_statistics_are_zeros(empty: Judged) -> None:
    metrics = summarize(empty, 3)
    assert (metrics.precision, metrics.recall, metrics.map50, metrics.map50_95, metrics.fitness) == (
        0,
        0,
        0,
        0,
        0,
    )
    assert metrics.class_maps.tolist() == [0, 0, 0]
    assert metrics.curves.f1.shape == (len(metrics.classes), 1000)


def test_a_class_with_labels_and_no_detection_scores_zero_and_counts() -> None:
    metrics = summarize(judged([True, True], [0.9, 0.8], [0, 0], [0, 0, 2]), 4)
    assert metrics.classes.tolist() == [0, 2]
    assert metrics.ap[:, 0] == pytest.approx([0.995, 0.0])
    assert metrics.map50 == pytest.approx(0.4975)
    assert metrics.class_maps == pytest.approx([0.995, 0.4975, 0.0, 0.4975])


def test_counts_at_the_working_point() -> None:
    metrics = summarize(judged([True, False, True, False], [0.9, 0.8, 0.7, 0.01], [0, 0, 0, 0], [0, 0, 0]), 1)
    assert metrics.true_positives.tolist() == [2]
    assert metrics.false_positives.tolist() == [1]
    assert 0.01 < metrics.best_score < 0.7


def test_the_order_of_detections_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    score = rng.permutation(50) / 50
    whole = Judged(rng.random((50, 10)) < 0.5, score, rng.integers(0, 3, 50), rng.integers(0, 3, 30))
    order = rng.permutation(50)
    shuffled = Judged(whole.correct[order], score[order], whole.predicted[order], whole.true)
    np.testing.assert_array_equal(summarize(whole, 3).ap, summarize(shuffled, 3).ap)


def test_average_precision_of_a_step() -> None:
    area, envelope, _ = average_precision(np.array([0.5, 0.5, 1.0]), np.array([1.0, 0.5, 2 / 3]))
    assert envelope.tolist() == pytest.approx([1, 1, 2 / 3, 2 / 3, 0])
    # Half at 1, half at 2/3, less half a point at the step and at the end.
    assert area == pytest.approx(5 / 6 - 0.005 * (1 / 3) - 0.005 * (2 / 3))


def test_the_box_filter_keeps_a_constant_and_the_length() -> None:
    np.testing.assert_allclose(smooth(np.full(1000, 0.3)), np.full(1000, 0.3))
