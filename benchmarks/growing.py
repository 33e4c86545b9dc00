"""Measures a cost at more and more work, and carries it on where a point would take too long.

It must not know what the work is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.stats import Point

LIMIT_S = 60.0
Cost = Callable[[float], Mapping[str, float]]


def grow(works: Sequence[float], cost: Cost, limit_s: float = LIMIT_S) -> dict[str, list[Point]]:
    """Return for each name of costs the points at these amounts of work, in rising order.

    `cost` measures all names at one amount. Where the line through the last two measurements says that it
    would take longer than `limit_s` of processor time, each cost is carried on along its own such line.
    """
    found: dict[str, list[Point]] = {}
    took: list[Point] = []
    for work in works:
        if len(took) > 1 and on_line(took, work) > limit_s:
            for points in found.values():
                points.append(Point(work, on_line(points, work), measured=False))
            continue
        began = time.process_time()
        for name, value in cost(work).items():
            found.setdefault(name, []).append(Point(work, value))
        took.append(Point(work, time.process_time() - began))
    return found


def on_line(points: Sequence[Point], work: float) -> float:
    """Return the cost of so much work on the line through the last two measured points."""
    before, last = [point for point in points if point.measured][-2:]
    return last.cost + (last.cost - before.cost) / (last.work - before.work) * (work - last.work)


def fastest(work: Callable[[], Any], times: int = 3) -> float:
    """Return the fewest processor seconds that a piece of work took."""
    least = math.inf
    for _ in range(times):
        began = time.process_time()
        work()
        least = min(least, time.process_time() - began)
    return least


def described(points: Sequence[Point], name: str, work_unit: str, cost_unit: str, how: str) -> dict[str, Any]:
    """Return a curve as JSON takes it."""
    return {
        "name": name,
        "work_unit": work_unit,
        "cost_unit": cost_unit,
        "points": [(point.work, point.cost, point.measured) for point in points],
        "how": how,
    }
