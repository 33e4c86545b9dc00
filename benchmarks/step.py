"""Where a training step spends its processor time: yolov5n, 320 pixels, batches of 16, one thread."""

from __future__ import annotations

import json
import subprocess
import sys

from benchmarks.bench import PACKAGE_ROOT, Bench, one_thread
from benchmarks.sample import write_folder
from benchmarks.stats import Figure, median, shares
from examples.digits import SceneRecipe

# About the objects of a real photograph, larger than what the network sees of it.
_SCENES = SceneRecipe(
    num_train=64, num_val=1, side=640, min_digits=10, max_digits=18, min_scale=8.0, max_scale=16.0
)


def measure(bench: Bench) -> list[Figure]:
    """Run the program of `step_run`; the parts are given for information."""
    data = write_folder(bench.folder / "step", _SCENES)
    command = [sys.executable, "-m", "benchmarks.step_run", str(data), "4" if bench.quick else "30"]
    asked = subprocess.run(
        command, cwd=PACKAGE_ROOT, env=one_thread(bench), stdout=subprocess.PIPE, text=True, check=True
    )
    found = json.loads(asked.stdout.splitlines()[-1])
    return _figures(found["parts"], int(found["batch"]))


def _figures(parts: dict[str, list[float]], batch: int) -> list[Figure]:
    totals = [sum(step) for step in zip(*parts.values(), strict=True)]
    whole = median(totals)
    how = (
        f"processor time, one thread, median of {len(totals)} steps of {batch} images, "
        f"fastest {1000 * min(totals):.0f} ms; the network is optimised and averaged at every batch"
    )
    shown = f"{1000 * whole:.0f} ms, {batch / whole:.1f} images/s"
    figures = [Figure("training step, yolov5n 320", whole, shown, None, how)]
    for name, share in shares(parts).items():
        milliseconds = 1000 * median(parts[name])
        figures.append(
            Figure(f"- of it {name}", milliseconds, f"{milliseconds:.1f} ms", None, f"{100 * share:.1f} %")
        )
    return figures
