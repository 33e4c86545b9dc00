"""How long an epoch takes on a host that is busy with other work, threads as each side sets them by default.

Two processes count without end, one for each of two cores. Ours has the environment that a worker gives its
trainer; the textbook has torch's own, whose threads spin while they wait.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from api.domain.settings import Settings
from benchmarks.bench import PACKAGE_ROOT, Bench
from benchmarks.photographs import photographs
from benchmarks.stats import Figure, median, ratio_figure, targets

FLOOR, AIMS = targets(2.5, 3, 4)
CORES = 2
_NO_PAIR_AFTER_S = 150.0
_THREADS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "MKL_NUM_THREADS")
# It ends with the process that started it, however that ends.
_ENDLESS = "import os; parent = os.getppid()\nwhile os.getppid() == parent: sum(range(1000))"


def measure(bench: Bench) -> list[Figure]:
    """Let both train in turn, an epoch each, while the host is busy."""
    pairs, imgsz, batch, images = (1, 64, 2, 2) if bench.quick else (4, 320, 16, 64)
    data = photographs(bench.folder, quick=bench.quick)
    seconds: dict[str, list[float]] = {"ours": [], "textbook": []}
    with ExitStack() as stack:
        sides = {}
        for side in seconds:
            options = [side, str(data.data_yaml), str(imgsz), str(batch), str(images)]
            sides[side] = stack.enter_context(_training(bench, side, options))
        stack.enter_context(_other_work())
        end = time.monotonic() + _NO_PAIR_AFTER_S
        while len(seconds["textbook"]) < pairs and (not seconds["textbook"] or time.monotonic() < end):
            for side, running in sides.items():
                seconds[side].append(_epoch(running))
    took = f"{median(seconds['ours']):.1f} against {median(seconds['textbook']):.1f} s"
    how = (
        f"wall, {took} for {images} images and at most {images // 2} to validate, two other processes at "
        f"work without end, {CORES} threads; ours waits passively as under a worker, the textbook has the "
        f"defaults of torch; {data.described}; {AIMS}"
    )
    name = "epoch on a busy host, textbook / ours"
    return [ratio_figure(name, seconds["ours"], seconds["textbook"], FLOOR, how)]


def environment(bench: Bench, side: str) -> Mapping[str, str]:
    """Return the variables a side is started with."""
    plain = {name: value for name, value in os.environ.items() if name not in _THREADS}
    plain |= {"PYTHONPATH": str(PACKAGE_ROOT), "TMPDIR": str(bench.folder)}
    if side == "textbook":
        return plain
    policy = str(Settings.model_fields["omp_wait_policy"].default).upper()
    return plain | {"OMP_NUM_THREADS": str(CORES), "OMP_WAIT_POLICY": policy}


@contextmanager
def _training(bench: Bench, side: str, options: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Yield a program that has trained its first epoch and waits."""
    running = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.busy_run", *options],
        cwd=PACKAGE_ROOT,
        env=environment(bench, side),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        _answer(running)
        yield running
    finally:
        running.kill()
        running.communicate()


def _epoch(running: subprocess.Popen[str]) -> float:
    assert running.stdin is not None
    running.stdin.write("\n")
    running.stdin.flush()
    return _answer(running)


def _answer(running: subprocess.Popen[str]) -> float:
    assert running.stdout is not None
    line = running.stdout.readline()
    if not line:
        raise subprocess.SubprocessError("a training program ended")
    return float(json.loads(line))


@contextmanager
def _other_work() -> Iterator[None]:
    others = [subprocess.Popen([sys.executable, "-c", _ENDLESS]) for _ in range(CORES)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()
