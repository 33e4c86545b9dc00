"""Figures that tests measure, collected and printed as one table at the end of the run.

A test calls `record`; what it hands over is shown whatever became of the test. The target is what is
promised, not what the test asserts: on a loaded machine a bound of five times as much may be right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_recorded: list[Figure] = []


@dataclass(frozen=True)
class Figure:
    """One measured value; `target` with the same unit is an upper bound unless `at_least`."""

    name: str
    value: float
    unit: str = ""
    target: float | None = None
    at_least: bool = False

    @property
    def verdict(self) -> str:
        """Return `ok`, `over` or `under` against the target; nothing without one."""
        if self.target is None:
            return ""
        if self.at_least:
            return "ok" if self.value >= self.target else "under"
        return "ok" if self.value <= self.target else "over"


def record(
    name: str, value: float, unit: str = "", target: float | None = None, *, at_least: bool = False
) -> Figure:
    """Remember a figure for the closing table and return it."""
    figure = Figure(name, float(value), unit, target, at_least)
    _recorded.append(figure)
    return figure


def record_spread(
    name: str, values: Sequence[float], unit: str = "", target: float | None = None
) -> list[Figure]:
    """Remember the median and the largest of several values; the target is that of the largest."""
    ordered = sorted(values)
    assert ordered, f"{name}: nothing was measured"
    middle = ordered[len(ordered) // 2]
    return [
        record(f"{name}, median of {len(ordered)}", middle, unit),
        record(f"{name}, worst of {len(ordered)}", ordered[-1], unit, target),
    ]


def recorded() -> list[Figure]:
    """Return all figures in the order they came."""
    return list(_recorded)


def table(figures: Sequence[Figure]) -> list[str]:
    """Return the lines of the table; of several figures of one name the worst is shown, with their number."""
    rows = [("figure", "value", "target", "")]
    for name in dict.fromkeys(figure.name for figure in figures):
        same = [figure for figure in figures if figure.name == name]
        worst = (min if same[0].at_least else max)(same, key=lambda figure: figure.value)
        shown = f"{name} (worst of {len(same)})" if len(same) > 1 else name
        bound = ">=" if worst.at_least else "<="
        target = "" if worst.target is None else f"{bound} {_number(worst.target)} {worst.unit}".rstrip()
        rows.append((shown, f"{_number(worst.value)} {worst.unit}".rstrip(), target, worst.verdict))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return [
        f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip()
        for row in rows
    ]


def _number(value: float) -> str:
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
