"""What a trainer holds of memory, and how many operations a step of it asks of a device."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

from benchmarks.bench import PACKAGE_ROOT, Bench, ask, one_thread
from benchmarks.photographs import photographs
from benchmarks.stats import Bound, Figure

MEMORY_BOUND = Bound(1.8, "GB")
KERNELS_BOUND = Bound(900, "operations")
WAITS_BOUND = Bound(1, "waits")


def measure(bench: Bench) -> list[Figure]:
    """Train yolov5n for an epoch as from a terminal, and count one step in another process."""
    imgsz, batch = (64, 4) if bench.quick else (320, 16)
    data = photographs(bench.folder, quick=bench.quick)
    peak = _peak_bytes(bench, str(data.data_yaml), imgsz, batch)
    how = (
        f"largest resident size of `python -m yolocore train` for an epoch with validation and pictures, "
        f"yolov5n, {imgsz} pixels, batch {batch}, one thread; {data.described}; goal 1.75 GB, moonshot 1.5 GB"
    )
    memory = Figure("trainer memory", peak / 1e9, f"{peak / 1e9:.2f} GB RSS peak", MEMORY_BOUND, how)
    return [memory, *figures(ask(bench, "operations_run", data.data_yaml, imgsz, batch))]


def figures(found: Mapping[str, int]) -> list[Figure]:
    """Return the figures of what was counted."""
    how = f"of one step, views left out, eager, counted on the CPU; textbook {found['textbook_kernels']:,}; "
    waits = f"values read and masks on the device, in one step; textbook {found['textbook_waits']}; goal 0"
    return [
        Figure(
            "operations of a step",
            found["kernels"],
            f"{found['kernels']}",
            KERNELS_BOUND,
            how + "goal 775, moonshot 250 (a graph)",
        ),
        Figure("host waits of a step", found["waits"], f"{found['waits']}", WAITS_BOUND, waits),
    ]


def _peak_bytes(bench: Bench, data_yaml: str, imgsz: int, batch: int) -> int:
    """Return the largest resident size of a run, as the kernel tells it when a process has ended."""
    options = {"--cfg": "yolov5n", "--epochs": 1, "--imgsz": imgsz, "--batch": batch}
    command = [sys.executable, "-m", "yolocore", "train", "--data", data_yaml]
    command += [str(word) for pair in options.items() for word in pair]
    command += ["--out", str(bench.folder / "footprint")]
    with subprocess.Popen(
        command, cwd=PACKAGE_ROOT, env=one_thread(bench), stdout=subprocess.DEVNULL
    ) as running:
        _, status, used = os.wait4(running.pid, 0)
        running.returncode = os.waitstatus_to_exitcode(status)
    if running.returncode:
        raise subprocess.CalledProcessError(running.returncode, command)
    return used.ru_maxrss * 1024
