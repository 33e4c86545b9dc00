"""The little statistics of the figures, and what a bound says of them."""

from __future__ import annotations

import math

import pytest

from benchmarks.stats import Bound, Figure, pair_ratios, percentile, shares, spread

AT_MOST = Bound(5, "s")
AT_LEAST = Bound(0.5, "of plain Python", at_least=True)


@pytest.mark.parametrize(
    ("value", "bound", "verdict"),
    [
        (4.9, AT_MOST, "kept"),
        (5.0, AT_MOST, "kept"),
        (5.1, AT_MOST, "missed"),
        (math.inf, AT_MOST, "missed"),
        (0.5, AT_LEAST, "kept"),
        (0.49, AT_LEAST, "missed"),
        (7.0, None, "-"),
        (None, AT_MOST, "not measured"),
        (None, None, "not measured"),
        (math.nan, AT_LEAST, "not measured"),
    ],
)
def test_verdict(value: float | None, bound: Bound | None, verdict: str) -> None:
    assert Figure("x", value, "", bound, "").verdict == verdict


def test_a_bound_says_its_direction() -> None:
    assert AT_MOST.shown == "at most 5 s"
    assert AT_LEAST.shown == "at least 0.5 of plain Python"


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1.0), (0.5, 3.0), (0.25, 2.0), (0.95, 4.8), (1.0, 5.0)]
)
def test_percentile_between_neighbours(share: float, expected: float) -> None:
    assert percentile([5, 1, 4, 2, 3], share) == pytest.approx(expected)


def test_percentile_of_one_and_of_none() -> None:
    assert percentile([7.0], 0.95) == 7.0
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_pair_ratios_want_pairs() -> None:
    assert pair_ratios([2.0, 3.0], [1.0, 6.0]) == [2.0, 0.5]
    with pytest.raises(ValueError, match="argument 2"):
        pair_ratios([1.0], [1.0, 2.0])


def test_shares_of_medians() -> None:
    found = shares({"a": [1.0, 1.0, 9.0], "b": [3.0, 3.0, 3.0]})
    assert found == {"a": 0.25, "b": 0.75}
    assert shares({"a": [0.0]}) == {"a": 0.0}


def test_spread() -> None:
    assert spread([1.234, 0.5]) == "0.50 to 1.23"
