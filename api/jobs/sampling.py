"""Thin a history out for drawing: of any number of points at most so many, and no extreme lost.

Buckets of lowest and highest rather than the largest triangles (LTTB): a point here carries a dozen figures
and is kept or left whole, and triangles promise nothing of the peaks of the other figures, nor even of their
own. Points are taken one by one and few are held, so that a long history streams through. It must not know
where points come from or what their figures mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

Point = TypeVar("Point")
Figures = Sequence[float | None]


class _Span(Generic[Point]):
    """The points of the lowest and the highest value over some places; of equal ones the first."""

    __slots__ = ("high", "high_place", "high_value", "low", "low_place", "low_value")

    def __init__(self, place: int, point: Point, value: float) -> None:
        self.low_place = self.high_place = place
        self.low = self.high = point
        self.low_value = self.high_value = value

    def add(self, place: int, point: Point, value: float) -> None:
        """Take a point of a later place."""
        if value < self.low_value:
            self.low_place, self.low, self.low_value = place, point, value
        if value > self.high_value:
            self.high_place, self.high, self.high_value = place, point, value

    def with_later(self, later: _Span[Point]) -> _Span[Point]:
        """Return the span of these places and those of a span behind."""
        both = _Span(self.low_place, self.low, self.low_value)
        both.high_place, both.high, both.high_value = self.high_place, self.high, self.high_value
        both.add(later.low_place, later.low, later.low_value)
        both.add(later.high_place, later.high, later.high_value)
        return both

    def points(self) -> Iterator[tuple[int, Point]]:
        """Give the highest, then the lowest, with their places."""
        yield self.high_place, self.high
        yield self.low_place, self.low


class Sampler(Generic[Point]):
    """Takes points in order and keeps at most `most` of them (2 at least).

    Kept are, as far as `most` reaches: the first and the last; of each figure the lowest and the highest, in
    the order of the figures; and of the first figure the lowest and the highest of each bucket of equally
    many places. A figure that is None or NaN counts as infinite, so that a run that breaks shows it. Buckets
    begin at fixed places and double as the history grows: points already chosen mostly stay.
    """

    def __init__(self, most: int, figures_of: Callable[[Point], Figures]) -> None:
        assert most >= 2
        self._most = most
        self._figures_of = figures_of
        self.count = 0
        self._all: list[Point] = []
        self._ends: tuple[Point, Point] | None = None
        self._extremes: list[_Span[Point]] = []
        self._buckets: list[_Span[Point]] = []
        self._width = 1

    def add(self, point: Point) -> None:
        """Take the next point."""
        place = self.count
        self.count += 1
        if self.count <= self._most:
            self._all.append(point)
        elif self._all:
            self._all.clear()
        self._ends = (self._ends[0] if self._ends else point, point)
        values = [_value(figure) for figure in self._figures_of(point)] or [math.inf]
        if not self._extremes:
            self._extremes = [_Span(place, point, value) for value in values]
        for span, value in zip(self._extremes, values, strict=True):
            if not span.low_value <= value <= span.high_value:
                span.add(place, point, value)
        self._put(place, point, values[0])

    def points(self) -> list[Point]:
        """Return the points that are kept so far, in order."""
        if self.count <= self._most:
            return list(self._all)
        kept = self._landmarks()
        buckets = self._buckets
        while len(chosen := {**kept, **_points(buckets)}) > self._most:
            if len(buckets) == 1:
                chosen = kept
                break
            buckets = _doubled(buckets)
        return [chosen[place] for place in sorted(chosen)]

    def _landmarks(self) -> dict[int, Point]:
        """Return the ends and the extremes of the whole by their places, as many as may be kept."""
        assert self._ends is not None
        kept = {0: self._ends[0], self.count - 1: self._ends[1]}
        for span in self._extremes:
            for place, point in span.points():
                if len(kept) < self._most:
                    kept[place] = point
        return kept

    def _put(self, place: int, point: Point, value: float) -> None:
        number = place // self._width
        if number < len(self._buckets):
            self._buckets[number].add(place, point, value)
            return
        self._buckets.append(_Span(place, point, value))
        # Two points of each bucket, beside the landmarks.
        if len(self._buckets) > max(1, (self._most - 2 - 2 * len(self._extremes)) // 2):
            self._buckets = _doubled(self._buckets)
            self._width *= 2


def thin(points: Sequence[Point], most: int | None, figures_of: Callable[[Point], Figures]) -> list[Point]:
    """Return at most `most` of the points, all where it is None; see `Sampler`."""
    if most is None:
        return list(points)
    sampler = Sampler(most, figures_of)
    for point in points:
        sampler.add(point)
    return sampler.points()


def _value(figure: float | None) -> float:
    return math.inf if figure is None or math.isnan(figure) else figure


def _points(buckets: Sequence[_Span[Point]]) -> dict[int, Point]:
    return {place: point for span in buckets for place, point in span.points()}


def _doubled(buckets: Sequence[_Span[Point]]) -> list[_Span[Point]]:
    """Return buckets of twice the width."""
    pairs = [buckets[start : start + 2] for start in range(0, len(buckets), 2)]
    return [pair[0].with_later(pair[1]) if len(pair) == 2 else pair[0] for pair in pairs]
