"""The fit of anchors to label sizes on numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from yolocore.ops.anchors import anchor_fit, side_ratios

ANCHORS = np.array([[10, 10], [40, 20]], np.float32)


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
