"""Tricks of the loader measured on and off, on scenes of digits; it must not know how figures are shown.

Processor seconds of one thread, but where threads are what is measured: those are seconds of the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.ours import read_data
from benchmarks.sample import MODEL
from benchmarks.tricks_made import in_turn, made
from benchmarks.tricks_network import Sizes
from benchmarks.tricks_report import Compared
from examples.digits import SceneRecipe
from yolocore.data.loader import TrainLoader
from yolocore.data.weights import class_counts, class_weights, image_weights
from yolocore.spec.config import CacheName, parse_config

VALIDATION_S = 0.2


def recipe(sizes: Sizes) -> SceneRecipe:
    """Return scenes of twice the side trained with, as photographs are larger too."""
    return SceneRecipe(num_train=3 * sizes.batch, num_val=2, side=2 * sizes.imgsz)


def loader_of(
    sizes: Sizes,
    data_yaml: Path,
    *,
    hyp: Mapping[str, Any] | None = None,
    cache: CacheName = "ram",
    **config: Any,
) -> TrainLoader:
    """Return a run's loader that makes batches when asked, with changes of the default configuration."""
    values = {"imgsz": sizes.imgsz, "batch": sizes.batch, "hyp": dict(hyp or {}), **config}
    text = MODEL.read_text(encoding="utf-8")
    parts = made(
        read_data(data_yaml), parse_config(values), text, cache=cache, cache_dir=data_yaml.parent / "cache"
    )
    return parts.wiring.train_loader(None)


def _batches(loader: TrainLoader) -> Callable[[], Any]:
    return lambda: [loader.batch_at(0, index) for index in range(len(loader))]


def _epochs(
    sizes: Sizes, trick: str, on: tuple[str, TrainLoader], off: tuple[str, TrainLoader], of: str = ""
) -> Compared:
    on_s, off_s = in_turn(sizes.pairs, _batches(on[1]), _batches(off[1]))
    what = f"{len(on[1])} batches of {sizes.batch} at {sizes.imgsz} px made{of}"
    return Compared(trick, on[0], off[0], what, on_s, off_s)


def mosaic(sizes: Sizes, data_yaml: Path) -> list[Compared]:
    """Compare mosaics with letterboxed pictures, and mixup with mosaics alone."""
    always = "always", loader_of(sizes, data_yaml)
    never = "never, letterbox", loader_of(sizes, data_yaml, hyp={"mosaic": 0.0})
    mixed = "with every mosaic", loader_of(sizes, data_yaml, hyp={"mixup": 1.0})
    return [
        _epochs(sizes, "mosaic", always, never),
        _epochs(sizes, "mixup", mixed, ("never", always[1])),
    ]


def cache(sizes: Sizes, data_yaml: Path) -> list[Compared]:
    """Compare both packed caches, filled, with decoding each time."""
    none = "decoded each time", loader_of(sizes, data_yaml, cache="none")
    kinds: tuple[CacheName, ...] = ("ram", "disk")
    found = []
    for kind in kinds:
        found.append(_epochs(sizes, "cache", (kind, loader_of(sizes, data_yaml, cache=kind)), none))
    return found


def quad(sizes: Sizes, data_yaml: Path) -> list[Compared]:
    """Compare quad collation with the plain one, for as many images."""
    on = "quad", loader_of(sizes, data_yaml, quad=True)
    return [_epochs(sizes, "quad collation", on, ("plain", loader_of(sizes, data_yaml)))]


def weights(sizes: Sizes, data_yaml: Path) -> list[Compared]:
    """Return what a new order by weights adds at the end of an epoch: milliseconds against none."""
    rows = [sample.rows for sample in read_data(data_yaml).train]
    maps = np.zeros(10)

    def on() -> None:
        image_weights(rows, class_weights(class_counts(rows, 10)), maps)

    on_s, off_s = in_turn(sizes.pairs, on, _batches(loader_of(sizes, data_yaml)))
    what = f"weights of {len(rows)} images, once an epoch, beside all their batches"
    return [Compared("image weights", "weights", "batches", what, on_s, off_s)]


def repeating(sizes: Sizes, data_yaml: Path) -> list[Compared]:
    """Compare the wait for an epoch's first batch of an endless loader and of one made for the epoch."""
    made_by = loader_of(sizes, data_yaml)
    endless = TrainLoader(made_by.samples, sizes.batch, seed=0, num_threads=1)
    on_s, off_s = [], []
    list(endless.epoch(0))
    for epoch in range(1, sizes.pairs + 1):
        time.sleep(VALIDATION_S)  # as long as a validation, during which an endless loader works ahead
        on_s.append(_first(endless, epoch))
        with TrainLoader(made_by.samples, sizes.batch, seed=0, num_threads=1) as fresh:
            off_s.append(_first(fresh, epoch))
    endless.close()
    what = f"wait by the clock for the first batch after {VALIDATION_S} s of validation, one loader thread"
    return [Compared("repeating sampler", "goes on", "made anew each epoch", what, on_s, off_s)]


def _first(loader: TrainLoader, epoch: int) -> float:
    batches = loader.epoch(epoch)
    began = time.perf_counter()
    next(batches)
    waited = time.perf_counter() - began
    for _ in batches:
        pass
    return waited


def threads(sizes: Sizes, data_yaml: Path) -> list[Compared]:
    """Compare two loader threads with one, by the clock: it says something on an idle machine only."""
    samples = loader_of(sizes, data_yaml).samples
    cv2.setNumThreads(0)
    ways = []
    for count in (2, 1):
        loader = TrainLoader(samples, sizes.batch, seed=0, num_threads=count)
        numbers = iter(range(10**6))
        ways.append(lambda loader=loader, numbers=numbers: list(loader.epoch(next(numbers))))
    on_s, off_s = in_turn(sizes.pairs, *ways, clock=time.perf_counter)
    what = f"an epoch of {len(samples)} images at {sizes.imgsz} px, by the clock"
    return [Compared("loader threads", "two", "one", what, on_s, off_s)]


MEASURES: Mapping[str, Callable[[Sizes, Path], list[Compared]]] = {
    "mosaic": mosaic,
    "cache": cache,
    "quad": quad,
    "weights": weights,
    "repeating": repeating,
    "threads": threads,
}
