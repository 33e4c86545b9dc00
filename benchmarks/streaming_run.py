"""Trains the same small run with streaming on and off, in turn: `streaming_run DATA_YAML REDIS_URL PAIRS`.

Prints one line of JSON: for each side a list of {wall_s, cpu_s, steps, events}, times being means of a step.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.bench import PACKAGE_ROOT
from benchmarks.sample import MODEL
from yolocore.run import train
from yolocore.spec.config import parse_config
from yolocore.spec.events import PhaseChange, TrainEvent
from yolocore.train.journal import JournalWriter
from yolocore.train.request import RunRequest, RunSettings

Emit = Callable[[TrainEvent], None]
_CONFIG = {"epochs": 2, "imgsz": 96, "batch": 4, "nominal_batch": 4, "threads": 1}
_NUM_UNSETTLED = 5


class StepClock:
    """Times the loop's steps: it asks its control once after every batch, and announces its phases."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._training = False
        self._marks: list[tuple[float, float]] = []
        self.walls: list[float] = []
        self.cpus: list[float] = []

    def emit(self, event: TrainEvent) -> None:
        """Pass an event on."""
        if isinstance(event, PhaseChange):
            self._training = event.phase == "training"
            self._marks = []
        self._emit(event)

    def poll(self) -> None:
        """Note the time of the end of a batch; the first ones of an epoch do not count."""
        if not self._training:
            return
        self._marks.append((time.perf_counter(), time.process_time()))
        if len(self._marks) > _NUM_UNSETTLED:
            (wall, cpu), (wall_after, cpu_after) = self._marks[-2:]
            self.walls.append(wall_after - wall)
            self.cpus.append(cpu_after - cpu)

    def result(self, num_events: int) -> dict[str, float]:
        """Return means of a step; a mean, because an event falls into one step of many."""
        steps = len(self.walls)
        return {
            "wall_s": sum(self.walls) / steps,
            "cpu_s": sum(self.cpus) / steps,
            "steps": steps,
            "events": num_events,
        }


@contextmanager
def shipping(journal: Path, url: str) -> Iterator[list[int]]:
    """Tail a journal from another process; afterwards the list holds how many events reached the stream."""
    shipped: list[int] = []
    tail = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.tail", str(journal), url],
        cwd=PACKAGE_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert tail.stdout is not None
    try:
        tail.stdout.readline()
        yield shipped
        rest, _ = tail.communicate(timeout=30)
        shipped.append(int(rest))
    finally:
        tail.kill()
        tail.wait()


def run(data_yaml: Path, emit: Emit) -> StepClock:
    """Train once and return the times of its steps."""
    clock = StepClock(emit)
    with tempfile.TemporaryDirectory(prefix="bench-run-") as folder:
        request = RunRequest(
            folder=Path(folder),
            config=parse_config(_CONFIG),
            architecture_name=MODEL.name,
            architecture_text=MODEL.read_text(encoding="utf-8"),
            data_yaml=data_yaml,
            settings=RunSettings(cache="ram", checkpoint_every_s=1e9, pictures=False),
        )
        train(request, emit=clock.emit, control=clock)
    return clock


def run_on(data_yaml: Path, url: str) -> dict[str, float]:
    """Train once with every event written, shipped and counted."""
    with tempfile.TemporaryDirectory(prefix="bench-journal-") as folder:
        path = Path(folder) / "events.jsonl"
        with shipping(path, url) as shipped:
            journal = JournalWriter(path)
            clock = run(data_yaml, journal.emit)
            journal.close()
        num_lines = len(path.read_bytes().splitlines())
    if shipped != [num_lines]:
        raise OSError(f"{num_lines} events were written, {shipped} reached the stream")
    return clock.result(num_lines)


def run_off(data_yaml: Path) -> dict[str, float]:
    """Train once with nobody listening."""
    return run(data_yaml, lambda event: None).result(0)


def main(data_yaml: Path, url: str, pairs: int) -> None:
    """Do the pairs, whichever side first in turn, after one run that does not count."""
    run_off(data_yaml)
    on, off = [], []
    for number in range(pairs):
        if number % 2:
            on.append(run_on(data_yaml, url))
        off.append(run_off(data_yaml))
        if not number % 2:
            on.append(run_on(data_yaml, url))
    print(json.dumps({"on": on, "off": off}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
