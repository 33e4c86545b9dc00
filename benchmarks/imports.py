"""How long the API takes to be imported in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.bench import PACKAGE_ROOT, Bench
from benchmarks.stats import Bound, Figure, median, spread

BOUND = Bound(1.0, "s")
_PROGRAM = (
    "import time; wall, cpu = time.perf_counter(), time.process_time(); import api.server; "
    "print(time.perf_counter() - wall, time.process_time() - cpu)"
)


def measure(bench: Bench) -> list[Figure]:
    """Import what `python -m api.server` imports, once to warm the page cache, then repeatedly."""
    count = 3 if bench.quick else 7
    walls, cpus = zip(*(_import_once() for _ in range(count + 1)), strict=True)
    walls, cpus = walls[1:], cpus[1:]
    how = (
        f"median of {count} fresh interpreters, wall, {spread(walls)} s; processor time {median(cpus):.2f} s"
    )
    return [Figure("API import", median(walls), f"{median(walls):.2f} s", BOUND, how)]


def _import_once() -> tuple[float, float]:
    command = [sys.executable, "-c", _PROGRAM]
    asked = subprocess.run(command, cwd=PACKAGE_ROOT, capture_output=True, text=True, check=True)
    wall, cpu = map(float, asked.stdout.split())
    return wall, cpu
