"""Thinning out: never too many, the ends and the extremes always, and the same points again."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.jobs.sampling import Sampler, thin

Row = tuple[float | None, ...]


def own(row: Row) -> Row:
    return row


def places(rows: Sequence[Row], most: int | None) -> list[int]:
    """Return where the kept rows were; rows carry their place last, which is no figure."""
    return [int(row[-1] or 0) for row in thin(rows, most, lambda row: row[:-1])]


def placed(values: Sequence[float | None]) -> list[Row]:
    return [(value, float(place)) for place, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "most", "kept"),
    [
        ([], 2, []),
        ([3, 1, 2], None, [0, 1, 2]),
        ([3, 1, 2], 3, [0, 1, 2]),
        ([3, 1, 9, 2], 2, [0, 3]),
        ([3, 1, 9, 2], 3, [0, 2, 3]),
        ([5, 4, 9, 4, 9, 1, 1, 5], 4, [0, 2, 5, 7]),
        ([5, 4, None, 4, math.nan, 1, 1, 5], 4, [0, 2, 5, 7]),
    ],
)
def test_what_is_kept(values: list[float | None], most: int | None, kept: list[int]) -> None:
    assert places(placed(values), most) == kept


figures = st.one_of(st.none(), st.floats(allow_nan=True))
histories = st.lists(st.tuples(figures, figures), max_size=300)


@settings(max_examples=300, deadline=None)
@given(history=histories, most=st.integers(2, 60))
def test_ends_and_extremes_are_kept_and_no_more_than_asked(history: list[Row], most: int) -> None:
    rows = [(*row, float(place)) for place, row in enumerate(history)]
    kept = places(rows, most)
    assert kept == sorted(set(kept))
    assert len(kept) == min(most, len(rows)) if len(rows) <= most else len(kept) <= most
    assert kept == places(rows, most), "the same again"
    if not rows:
        return
    assert (kept[0], kept[-1]) == (0, len(rows) - 1)
    if most >= 6:
        for figure in (0, 1):
            told = [math.inf if (v := row[figure]) is None or math.isnan(v) else v for row in rows]
            assert {told.index(max(told)), told.index(min(told))} <= set(kept)


def test_a_peak_in_each_part_of_a_curve_is_seen() -> None:
    """4,096 points, every 256 of them a peak of its own height: 100 points show them all."""
    values = [float(place % 7) + (100 + place if place % 256 == 200 else 0) for place in range(4096)]
    kept = places(placed(values), 100)
    assert set(range(200, 4096, 256)) <= set(kept)
    assert len(kept) <= 100


def test_what_was_kept_stays_while_a_run_goes_on() -> None:
    """Between two doublings of the buckets only the end of the curve changes."""
    values = [math.sin(place / 9) * (place % 5) for place in range(1500)]
    before, after = places(placed(values[:1300]), 64), places(placed(values), 64)
    settled = [place for place in before if place < 1000]
    lost = set(settled) - set(after)
    assert len(settled) > 30
    assert len(lost) <= 4, "extremes of the whole may move"


def test_few_points_are_held() -> None:
    sampler: Sampler[Row] = Sampler(50, own)
    for place in range(20_000):
        sampler.add((float(place * 7919 % 10_007),))
    assert sampler.count == 20_000
    assert len(sampler._buckets) <= 25
    assert sampler._all == []
    assert 25 <= len(sampler.points()) <= 50
