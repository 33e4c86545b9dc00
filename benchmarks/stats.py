"""Figures, bounds and the little statistics they need. Pure: it must not know what is measured or how."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

Verdict = Literal["kept", "missed", "not measured", "-"]
MB = 1_000_000


@dataclass(frozen=True)
class Bound:
    """A limit in a unit; a figure keeps it from below, or from above with `at_least`. Equal is kept."""

    limit: float
    unit: str
    at_least: bool = False

    @property
    def shown(self) -> str:
        """The bound in words."""
        return f"{'at least' if self.at_least else 'at most'} {self.limit:g} {self.unit}".strip()


@dataclass(frozen=True)
class Figure:
    """One line of the table: `value` in the unit of the bound, `shown` for people, how it came about.

    A value of None says that it could not be measured; `shown` then tells why.
    """

    name: str
    value: float | None
    shown: str
    bound: Bound | None
    how: str

    @property
    def verdict(self) -> Verdict:
        """What the bound says of the value; `-` for a figure without a bound."""
        if self.value is None or math.isnan(self.value):
            return "not measured"
        if self.bound is None:
            return "-"
        kept = self.value >= self.bound.limit if self.bound.at_least else self.value <= self.bound.limit
        return "kept" if kept else "missed"


@dataclass(frozen=True)
class Point:
    """The cost of so much work: `work` in the curve's unit of work, `cost` in its unit of cost.

    `measured` is False where the cost was carried on from smaller points.
    """

    work: float
    cost: float
    measured: bool = True


@dataclass(frozen=True)
class Curve:
    """How a cost grows with work, from the least work to the most; `how` says how it came about."""

    name: str
    work_unit: str
    cost_unit: str
    points: Sequence[Point]
    how: str

    @property
    def exponent(self) -> float:
        """The power of the work that the cost grew with between the two largest measured points.

        1 is in proportion, 0 is not at all; NaN where fewer than two points were measured.
        """
        measured = [point for point in self.points if point.measured]
        if len(measured) < 2:
            return math.nan
        before, last = measured[-2:]
        if min(before.cost, last.cost) <= 0:
            return math.nan
        return math.log(last.cost / before.cost) / math.log(last.work / before.work)


def ratio_figure(
    name: str, ours: Sequence[float], theirs: Sequence[float], bound: Bound | None, how: str
) -> Figure:
    """Return how many times less ours costs than theirs: the median of the pairs, as `1.23x`."""
    ratios = pair_ratios(theirs, ours)
    middle = median(ratios)
    spoken = f"median of {len(ratios)} pairs in turn, {spread(ratios)}; {how}"
    return Figure(name, middle, f"{middle:.2f}x", bound, spoken)


def targets(floor: float, goal: float, moonshot: float | None = None) -> tuple[Bound, str]:
    """Return the floor of a ratio as a bound, and goal and moonshot in words."""
    words = f"goal {goal:g}x" + (f", moonshot {moonshot:g}x" if moonshot else "")
    return Bound(floor, "x", at_least=True), words


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share (0 to 1) of the values lies, between neighbours by a line.

    The definition numpy calls `linear`; raises ValueError for no values.
    """
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def pair_ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return ours / theirs of each pair; raises ValueError where the two differ in length."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def shares(parts: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return each part's share of the sum of all medians, 0 to 1."""
    medians = {name: median(values) for name, values in parts.items()}
    whole = sum(medians.values())
    return {name: value / whole if whole else 0.0 for name, value in medians.items()}


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return smallest and largest value in words."""
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}"


__all__ = [
    "MB",
    "Bound",
    "Curve",
    "Figure",
    "Point",
    "Verdict",
    "median",
    "pair_ratios",
    "percentile",
    "ratio_figure",
    "shares",
    "spread",
    "targets",
]
