"""How fast augmented batches are made beside the textbook's, a core, and what a second thread brings."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

from benchmarks.bench import Bench, ask
from benchmarks.photographs import photographs
from benchmarks.stats import Figure, median, ratio_figure, targets

RENDERERS = {"ours": "", "fast": ", augment=fast"}
# Ours, then the textbook's. A target without a cache is that of packed images against reading them anew.
PAIRS = {
    ("ram", "ram"): "images in memory",
    ("ram", "none"): "images in memory against no cache",
    ("none", "none"): "no cache",
}
# Targets are set for 640 pixels; at 320 the ratios are for information.
AIMS = {(640, "ram", "ram"): targets(2.2, 2.75, 5.5), (640, "ram", "none"): targets(3.4, 4, 9)}
THREADS_FLOOR, THREADS_AIMS = targets(1.6, 1.85, 1.95)


def measure(bench: Bench) -> list[Figure]:
    """Run the program of `loader_run` for each size."""
    sizes, pairs = ((64,), 1) if bench.quick else ((320, 640), 4)
    data = photographs(bench.folder, quick=bench.quick)
    found = []
    for imgsz in sizes:
        batches = 2 if bench.quick else 12
        answer = ask(bench, "loader_run", data.data_yaml, pairs, imgsz, batches)
        found += figures(answer, imgsz, data.described)
    return found


def figures(found: Mapping[str, Any], imgsz: int, described: str) -> list[Figure]:
    """Return the figures of one size of what the program found."""
    seconds, images = found["seconds"], found["images"]
    made = []
    for ((mine, other), words), (renderer, note) in product(PAIRS.items(), RENDERERS.items()):
        ours, textbook = seconds[f"{renderer} {mine}"], seconds[f"textbook {other}"]
        bound, aims = AIMS.get((imgsz, mine, other), (None, "no target"))
        how = (
            f"{images / median(ours):.0f} against {images / median(textbook):.0f} images a processor second, "
            f"targets matched in ours; {described}; {aims}"
        )
        name = f"loader, {imgsz} pixels, {words}{note}, textbook / ours"
        made.append(ratio_figure(name, ours, textbook, bound, how))
    one, two = seconds["threads 1"], seconds["threads 2"]
    speeds = f"{images / median(two):.0f} against {images / median(one):.0f} images/s of wall time"
    floor = THREADS_FLOOR if imgsz >= 640 else None
    how = f"{speeds}, images in memory; wants two free cores; {THREADS_AIMS}"
    made.append(ratio_figure(f"loader, {imgsz} pixels, two threads / one", two, one, floor, how))
    return made
