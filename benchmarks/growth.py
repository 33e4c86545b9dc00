"""How the cost of parts of training grows with pictures, boxes, classes, image size and model size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.bench import Bench, ask
from benchmarks.stats import Curve, Point

PARTS = ("images", "boxes", "classes", "size", "model")


def measure(bench: Bench) -> list[Curve]:
    """Run the program of `growth_run` for each part in a process of its own."""
    mode = "quick" if bench.quick else "full"
    return [
        curve(found)
        for part in PARTS
        for found in ask(bench, "growth_run", part, mode, bench.folder / f"growth-{part}")
    ]


def curve(found: Mapping[str, Any]) -> Curve:
    """Return the curve that the program described."""
    points: Sequence[tuple[float, float, bool]] = found["points"]
    return Curve(
        found["name"],
        found["work_unit"],
        found["cost_unit"],
        [Point(work, cost, measured) for work, cost, measured in points],
        found["how"],
    )
