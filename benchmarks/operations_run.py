"""Counts the operations of one training step: `operations_run DATA_YAML IMGSZ BATCH`, one line of JSON."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from benchmarks.counting import Counting
from benchmarks.ours import CPU, ours, read_data
from benchmarks.training_run import textbook_training
from yolocore.model.layers import join_norms
from yolocore.train.numerics import numerics


def count(data_yaml: Path, imgsz: int, batch: int) -> dict[str, int]:
    """Count our second step and the textbook's; the first one makes what later ones keep."""
    data = read_data(data_yaml)
    parts = ours(data, imgsz=imgsz, batch=batch)
    textbook = textbook_training(parts, cached=False)
    trainer = parts.trainer(lambda event: None)
    join_norms(parts.network, joined=False)  # which is for the CPU; what is counted stands for a device
    batches = parts.wiring.train_loader(None).epoch(0)
    trainer.train_batch(next(batches))
    second = next(batches)
    mine: Any = Counting()
    held: AbstractContextManager[Any] = mine
    with held:
        trainer.train_batch(second)
    textbook.step(second.images.contiguous(), second.targets)
    other: Any = Counting()
    held = other
    with held:
        textbook.step(second.images.contiguous(), second.targets)
    return {
        "kernels": mine.kernels,
        "waits": mine.waits,
        "textbook_kernels": other.kernels,
        "textbook_waits": other.waits,
    }


def main(arguments: list[str]) -> None:
    """Count and print."""
    data_yaml, imgsz, batch = arguments
    with numerics(1, CPU):
        found = count(Path(data_yaml), int(imgsz), int(batch))
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
