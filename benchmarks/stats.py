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


__all__ = ["MB", "Bound", "Figure", "Verdict", "median", "pair_ratios", "percentile", "shares", "spread"]
