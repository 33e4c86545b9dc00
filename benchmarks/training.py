"""What epochs of training and validation cost beside the textbook's: yolov5n, one thread, in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.bench import Bench, ask
from benchmarks.photographs import photographs
from benchmarks.stats import Figure, median, ratio_figure, targets

LOOP_FLOOR, LOOP_AIMS = targets(1.30, 1.45, 1.65)
EPOCH_FLOOR, EPOCH_AIMS = targets(1.40, 1.6, 2.0)


def measure(bench: Bench) -> list[Figure]:
    """Run the program of `training_run`, each with its default: ours with its images packed in memory."""
    pairs, imgsz, batch = (1, 64, 4) if bench.quick else (4, 320, 16)
    data = photographs(bench.folder, quick=bench.quick)
    found = ask(bench, "training_run", data.data_yaml, pairs, imgsz, batch)
    return figures(
        found,
        f"{data.described}, {imgsz} pixels, batches of {batch}; ours has packed its images in the first "
        "epoch, which is not counted, the textbook has no cache",
    )


def figures(found: Mapping[str, Any], where: str) -> list[Figure]:
    """Return the figures of what the program found."""
    seconds: Mapping[str, Sequence[float]] = found["seconds"]
    whole = {
        side: [a + b for a, b in zip(seconds[f"{side} train"], seconds[f"{side} val"], strict=True)]
        for side in ("ours", "textbook")
    }
    speed = found["images"] / median(seconds["ours train"])
    other = found["images"] / median(seconds["textbook train"])
    loop = f"{speed:.1f} against {other:.1f} images a processor second; {where}; {LOOP_AIMS}"
    epoch = f"{median(whole['ours']):.1f} against {median(whole['textbook']):.1f} s; {EPOCH_AIMS}"
    val = f"{median(seconds['ours val']):.2f} against {median(seconds['textbook val']):.2f} s"
    return [
        ratio_figure(
            "training loop, textbook / ours",
            seconds["ours train"],
            seconds["textbook train"],
            LOOP_FLOOR,
            loop,
        ),
        ratio_figure(
            "epoch with validation, textbook / ours", whole["ours"], whole["textbook"], EPOCH_FLOOR, epoch
        ),
        ratio_figure("- of it validation", seconds["ours val"], seconds["textbook val"], None, val),
    ]
