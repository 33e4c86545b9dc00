"""What live events cost a training step: the same run with its events shipped to Redis, and with none."""

from __future__ import annotations

import json
import subprocess
import sys

from benchmarks.bench import PACKAGE_ROOT, Bench, one_thread
from benchmarks.broker import running_broker
from benchmarks.sample import write_folder
from benchmarks.stats import Bound, Figure, median, pair_ratios, spread
from examples.digits import SceneRecipe

BOUND = Bound(5.0, "% more")


def measure(bench: Bench) -> list[Figure]:
    """Run the program of `streaming_run` on a small sample, with a Valkey of its own."""
    pairs = 2 if bench.quick else 8
    data = write_folder(
        bench.folder / "streaming", SceneRecipe(num_train=80 if bench.quick else 320, num_val=8)
    )
    with running_broker(bench.folder / "valkey") as url:
        command = [sys.executable, "-m", "benchmarks.streaming_run", str(data), url, str(pairs)]
        asked = subprocess.run(
            command, cwd=PACKAGE_ROOT, env=one_thread(bench), stdout=subprocess.PIPE, text=True, check=True
        )
    sides = json.loads(asked.stdout.splitlines()[-1])
    return [_figure(sides["on"], sides["off"])]


def _figure(on: list[dict[str, float]], off: list[dict[str, float]]) -> Figure:
    wall, cpu = (
        [100 * (ratio - 1) for ratio in pair_ratios([s[key] for s in on], [s[key] for s in off])]
        for key in ("wall_s", "cpu_s")
    )
    step_ms, num_steps = 1000 * median([side["wall_s"] for side in off]), int(off[0]["steps"])
    num_events, seconds = (
        sum(side["events"] for side in on),
        sum(side["wall_s"] * side["steps"] for side in on),
    )
    shown = f"{median(wall):+.1f} % wall, {median(cpu):+.1f} % processor time"
    how = (
        f"median of {len(on)} pairs in turn (wall {spread(wall, 1)} %, processor {spread(cpu, 1)} %) of "
        f"{num_steps} steps of {step_ms:.0f} ms, a small network so that it would show; "
        f"{num_events / seconds:.1f} events/s shipped by another process"
    )
    return Figure("step time, streaming on against off", median(wall), shown, BOUND, how)
