"""Times epochs, ours and the textbook's in turn: `training_run DATA_YAML PAIRS IMGSZ BATCH`.

Ours packs its images in memory, as it does unless told otherwise; the textbook reads them anew in every
epoch. One thread each, processor seconds of training and of validation after the first epoch; one line of
JSON at its end.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections import defaultdict
from pathlib import Path

import torch

from benchmarks.baselines.data import TextbookData
from benchmarks.baselines.loss import TextbookLoss
from benchmarks.baselines.training import TextbookTraining, plain_twin
from benchmarks.ours import CPU, Ours, ours, read_data
from yolocore.spec.events import EpochDone, PhaseChange, TrainEvent
from yolocore.train.numerics import numerics

Seconds = dict[str, list[float]]


class InTurn:
    """Hears of our epochs, books their parts, and trains one of the textbook's after each."""

    def __init__(self, other: TextbookTraining) -> None:
        self.other = other
        self.seconds: Seconds = defaultdict(list)
        self._began = time.process_time()

    def __call__(self, event: TrainEvent) -> None:
        """Take an event."""
        if isinstance(event, PhaseChange) and event.phase == "training":
            self._began = time.process_time()
        elif isinstance(event, PhaseChange) and event.phase == "validating":
            self._book("ours train")
        elif isinstance(event, EpochDone):
            self._book("ours val")
            self.other.epoch()
            self._book("textbook train")
            self.other.validate()
            self._book("textbook val")

    def _book(self, name: str) -> None:
        now = time.process_time()
        self.seconds[name].append(now - self._began)
        self._began = now


def textbook_loss(parts: Ours) -> TextbookLoss:
    """Return the loss with the gains and anchors of a run of ours."""
    loss = parts.wiring.loss()
    anchors = torch.from_numpy(parts.wiring.anchors_grid)
    return TextbookLoss(anchors, loss.num_classes, *loss.gains)


def textbook_training(parts: Ours, *, cached: bool) -> TextbookTraining:
    """Return a textbook run from the same weights on the same data."""
    wiring = parts.wiring
    num_batches = -(-len(wiring.data.train) // wiring.batch)
    largest = max(sample.height / sample.width for sample in wiring.data.val)
    rows, columns = (
        math.ceil(wiring.imgsz * side / wiring.val_stride + 0.5) * wiring.val_stride
        for side in (min(largest, 1), 1)
    )
    return TextbookTraining(
        plain_twin(parts.network),
        textbook_loss(parts),
        wiring.schedule(num_batches),
        TextbookData(wiring.data.train, wiring.imgsz, cached=cached),
        TextbookData(wiring.data.val, wiring.imgsz, cached=cached),
        batch=wiring.batch,
        frame_hw=(rows, columns),
    )


def time_epochs(data_yaml: Path, pairs: int, imgsz: int, batch: int) -> Seconds:
    """Train `pairs` and one epochs of both; return the seconds without the first ones."""
    data = read_data(data_yaml)
    with numerics(1, CPU):
        parts = ours(data, imgsz=imgsz, batch=batch, epochs=pairs + 1, cache="ram")
        in_turn = InTurn(textbook_training(parts, cached=False))
        parts.trainer(in_turn).run()
    return {name: values[1:] for name, values in in_turn.seconds.items()}


def main(arguments: list[str]) -> None:
    """Time and print."""
    data_yaml, pairs, imgsz, batch = arguments
    seconds = time_epochs(Path(data_yaml), int(pairs), int(imgsz), int(batch))
    print(json.dumps({"seconds": seconds, "images": len(read_data(Path(data_yaml)).train)}))


if __name__ == "__main__":
    main(sys.argv[1:])
