"""Times loaders, ours and the textbook's in turn: `loader_run DATA_YAML PAIRS IMGSZ BATCHES`.

Batches of 16, processor seconds for one thread and wall seconds for one and two threads of ours; one line of
JSON at its end.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.baselines.data import TextbookData
from benchmarks.ours import CPU, ours, read_data
from yolocore.data.loader import TrainLoader
from yolocore.spec.config import CacheName
from yolocore.train.inputs import Data
from yolocore.train.numerics import numerics

BATCH = 16


def our_loader(data: Data, imgsz: int, batch: int, cache: CacheName, threads: int = 0) -> TrainLoader:
    """Return the loader of a run with default hyperparameters, matching included."""
    parts = ours(data, imgsz=imgsz, batch=batch, cache=cache, loader_threads=threads)
    return parts.wiring.train_loader(None)


def fast_loader(data: Data, imgsz: int, batch: int, cache: CacheName) -> TrainLoader:
    """Return the same with `augment=fast`."""
    loader = our_loader(data, imgsz, batch, cache)
    loader.samples.renderer = "fast"
    return loader


def time_loaders(data: Data, pairs: int, imgsz: int, batches: int) -> dict[str, Any]:
    """Return processor seconds of the six loaders and wall seconds by threads, without the first turn."""
    batch = min(BATCH, len(data.train))
    seconds: dict[str, list[float]] = defaultdict(list)
    caches: tuple[CacheName, ...] = ("none", "ram")
    loaders = {cache: our_loader(data, imgsz, batch, cache) for cache in caches}
    fast = {cache: fast_loader(data, imgsz, batch, cache) for cache in caches}
    textbooks = {cache: TextbookData(data.train, imgsz, cached=cache == "ram") for cache in caches}
    for turn in range(pairs + 1):
        for cache in caches:
            for name, take in (
                (f"ours {cache}", partial(_take, loaders[cache], turn, batches)),
                (f"fast {cache}", partial(_take, fast[cache], turn, batches)),
                (f"textbook {cache}", partial(_make, textbooks[cache], batch, batches)),
            ):
                began = time.process_time()
                take()
                if turn:
                    seconds[name].append(time.process_time() - began)
        for threads in (1, 2):
            wall = _wall(data, imgsz, batch, threads, batches)
            if turn:
                seconds[f"threads {threads}"].append(wall)
    return {"seconds": seconds, "images": batch * batches}


def _take(loader: TrainLoader, epoch: int, batches: int) -> None:
    taken = 0
    while taken < batches:
        for _ in loader.epoch(epoch):
            taken += 1
            if taken == batches:
                return
        epoch += 1000


def _make(data: TextbookData, batch: int, batches: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(batches):
        data.train_batch([int(i) for i in rng.integers(0, len(data.samples), batch)], rng)


def _wall(data: Data, imgsz: int, batch: int, threads: int, batches: int) -> float:
    with closing(our_loader(data, imgsz, batch, "ram", threads)) as loader:
        _take(loader, 0, 1)
        began = time.perf_counter()
        _take(loader, 1, batches)
        return time.perf_counter() - began


def main(arguments: list[str]) -> None:
    """Time and print."""
    data_yaml, pairs, imgsz, batches = arguments
    data = read_data(Path(data_yaml))
    with numerics(1, CPU):
        found = time_loaders(data, int(pairs), int(imgsz), int(batches))
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
