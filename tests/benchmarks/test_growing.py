"""Points of a curve: measured while that is quick, carried on along a line where it would not be."""

from __future__ import annotations

import math
import time

import pytest

from benchmarks.growing import described, grow, on_line
from benchmarks.growth import curve
from benchmarks.report import Setting, curve_cells, markdown_curves, readme, text_curves
from benchmarks.stats import Curve, Point

SETTING = Setting("2026-01-02", "A Processor", 2, 8 << 30, "Linux 6", "3.11.9", "2.14.1", "abc", 0.1, 0.2)
CURVE = Curve(
    "reading", "images", "s", [Point(10, 0.5), Point(100, 5), Point(1000, 5000, False)], "how it was"
)


def test_quick_points_are_all_measured() -> None:
    found = grow([1, 2, 4], lambda work: {"a": work * 10, "b": 1.0})
    assert found == {"a": [Point(1, 10), Point(2, 20), Point(4, 40)], "b": [Point(w, 1.0) for w in (1, 2, 4)]}


def test_a_point_that_would_take_too_long_lies_on_the_line_of_the_last_two() -> None:
    asked = []

    def cost(work: float) -> dict[str, float]:
        asked.append(work)
        until = time.process_time() + 0.001 * work
        while time.process_time() < until:
            pass
        return {"a": 3 + 2 * work}

    found = grow([1, 2, 1000, 2000], cost, limit_s=0.5)["a"]
    assert asked == [1, 2]
    assert found[2:] == [Point(1000, 2003, measured=False), Point(2000, 4003, measured=False)]


def test_the_line_goes_through_measured_points_alone() -> None:
    assert on_line([Point(1, 1), Point(2, 2), Point(3, 9, measured=False)], 10) == pytest.approx(10)


@pytest.mark.parametrize(
    ("points", "exponent"),
    [
        ([Point(1, 5), Point(10, 5)], 0),
        ([Point(1, 5), Point(10, 50)], 1),
        ([Point(1, 1), Point(3, 2), Point(30, 200)], 2),
        ([Point(1, 1), Point(10, 100), Point(100, 200, measured=False)], 2),
    ],
)
def test_the_power_is_that_of_measured_points(points: list[Point], exponent: float) -> None:
    assert Curve("", "", "", points, "").exponent == pytest.approx(exponent)


@pytest.mark.parametrize("points", [[Point(1, 1)], [Point(1, 0), Point(2, 3)]])
def test_no_power_without_two_costs(points: list[Point]) -> None:
    assert math.isnan(Curve("", "", "", points, "").exponent)
    assert curve_cells(Curve("", "", "", points, ""))[3] == ""


def test_a_curve_in_words() -> None:
    cells = ("reading", "images", "10: 0.5 s; 100: 5 s; 1,000: 5,000 s (extrapolated)", "1.00", "how it was")
    assert curve_cells(CURVE) == cells
    assert text_curves([CURVE]).splitlines()[1].split("  ") == [*cells[:4], " how it was"]
    assert "| " + " | ".join(cells) + " |" in markdown_curves([CURVE])
    assert "How cost grows with work" in readme([], SETTING, ["a"], [CURVE])
    assert "How cost grows with work" not in readme([], SETTING, ["a"])


def test_a_curve_comes_back_from_json() -> None:
    assert curve(described(CURVE.points, "reading", "images", "s", "how it was")) == CURVE
