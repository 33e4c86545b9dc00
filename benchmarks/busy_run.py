"""Trains epoch after epoch, one for each line read: `busy_run ours|textbook DATA_YAML IMGSZ BATCH IMAGES`.

Threads are left as the environment sets them. After each epoch with its validation it prints a line of JSON,
the wall seconds; the first one does not count, and is not waited for. It ends with its input.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from benchmarks.ours import CPU, ours, read_data
from benchmarks.training_run import textbook_training
from yolocore.spec.events import EpochDone, TrainEvent
from yolocore.train.inputs import Data
from yolocore.train.numerics import numerics
from yolocore.train.request import RunSettings

_EPOCHS = 1000


class OverError(Exception):
    """There is nobody left to train for."""


class Turns:
    """Tells the seconds of an epoch when it is over, and waits for the word to start the next."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    def next(self) -> None:
        """End this epoch and begin another; raises OverError at the end of the input."""
        print(json.dumps(time.perf_counter() - self._began), flush=True)
        if not sys.stdin.readline():
            raise OverError
        self._began = time.perf_counter()

    def hear(self, event: TrainEvent) -> None:
        """Take an event of a run."""
        if isinstance(event, EpochDone):
            self.next()


def train(side: str, data: Data, imgsz: int, batch: int) -> None:
    """Train until OverError is raised."""
    threads = RunSettings().loader_threads if side == "ours" else 0
    parts = ours(data, imgsz=imgsz, batch=batch, epochs=_EPOCHS, loader_threads=threads)
    turns = Turns()
    if side == "ours":
        with numerics(None, CPU):
            parts.trainer(turns.hear).run()
        return
    textbook = textbook_training(parts, cached=False)
    epoch: tuple[Callable[[], object], ...] = (textbook.epoch, textbook.validate)
    while True:
        for part in epoch:
            part()
        turns.next()


def main(arguments: list[str]) -> None:
    """Read the data and train."""
    side, data_yaml, imgsz, batch, count = arguments
    read = read_data(Path(data_yaml))
    few = Data(read.names, read.train[: int(count)], read.val[: int(count) // 2])
    with suppress(OverError):
        train(side, few, int(imgsz), int(batch))


if __name__ == "__main__":
    main(sys.argv[1:])
