"""What the stack's processes hold of memory, before and after they have worked."""

from __future__ import annotations

import time

from benchmarks.bench import Bench
from benchmarks.machine import ROLES, Memory, members, memory
from benchmarks.stats import MB, Bound, Figure

BOUND = Bound(120, "MB")


def measure(bench: Bench) -> list[Figure]:
    """Measure a stack that has just come up and has done nothing."""
    how = "largest of {count} looks at a fresh stack"
    return [_figure(f"idle memory, {role}", found, BOUND, how) for role, found in _look(bench).items()]


def measure_after(bench: Bench) -> list[Figure]:
    """Measure the same stack again after what the other figures made it do."""
    how = "the same stack at rest again, after the uploads and jobs above"
    return [_figure(f"memory after work, {role}", found, None, how) for role, found in _look(bench).items()]


def _figure(name: str, found: list[Memory], bound: Bound | None, how: str) -> Figure:
    largest = max(found, key=lambda look: look.rss_bytes)
    rss, pss = largest.rss_bytes / MB, largest.pss_bytes / MB
    torch = "torch IS LOADED" if any(look.has_torch for look in found) else "no torch"
    value = float("inf") if largest.has_torch else rss
    shown = f"{rss:.1f} MB RSS, {pss:.1f} MB PSS"
    return Figure(name, value, shown, bound, how.format(count=len(found)) + f"; {torch}")


def _look(bench: Bench) -> dict[str, list[Memory]]:
    pause_s, count = (0.5, 2) if bench.quick else (2.0, 5)
    found: dict[str, list[Memory]] = {role: [] for role in ROLES}
    for _ in range(count):
        time.sleep(pause_s)
        for role, process in members(bench.data_dir).items():
            found[role].append(memory(process))
    return found
