"""Training steps on any device with the run's own loop: made batches, what they give, cost and wait for.

It must not know the form. Nothing in it is for CUDA only but the clock, the peak of memory and the watch over
synchronisation.
"""

from __future__ import annotations

import gc
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.gpu_form import reason_of
from benchmarks.ours import ours, read_data
from yolocore.data.collate import Batch, Item, collate
from yolocore.data.draws import generator
from yolocore.errors import OutOfMemoryError
from yolocore.ops.assign import assign_targets
from yolocore.train.batchsize import NO_ROOM
from yolocore.train.inputs import Data
from yolocore.train.precision import Precision, PrecisionName
from yolocore.train.schedule import Point
from yolocore.train.trainer import Trainer
from yolocore.train.watch import Watch
from yolocore.wiring import Wiring

# A scale from which yolov5n's first gradients are finite, so that no step is skipped and steps compare.
START_SCALE = 1024.0
BOXES, PICTURES = 12, 16
OUT_OF_MEMORY = "out of memory"
REDUCED: tuple[PrecisionName, ...] = ("fp16", "bf16")
# The host waits for these on CUDA: a value read, or a shape that depends on values.
WAITING = {
    "_local_scalar_dense", "item", "nonzero", "nonzero_numpy", "masked_select", "is_nonzero", "equal",
    "unique", "_unique2", "unique_dim", "unique_consecutive", "argwhere", "repeat_interleave",
}  # fmt: skip


@dataclass(frozen=True)
class Sizes:
    """What is measured: networks, batches that grow until memory ends, sides in pixels, steps, pictures."""

    models: tuple[str, ...]
    batches: tuple[int, ...]
    side: int
    warm: int
    steps: int
    num_train: int
    picture_side: int
    epochs: int
    small_batch: int


ALL = ("yolov5n", "yolov5s", "yolov5m", "yolov5l", "yolov5x")
ON_CUDA = Sizes(ALL, (8, 16, 32, 64, 128, 256, 512, 1024), 640, 3, 10, 256, 640, 5, 16)
ON_CPU = Sizes(ALL[:2], (2, 4), 320, 1, 3, 32, 320, 2, 8)
QUICK = Sizes(ALL[:1], (2, 4), 64, 1, 2, 8, 96, 2, 4)


@dataclass(frozen=True)
class Check:
    """What every part is given."""

    device: torch.device
    sizes: Sizes
    data_yaml: Path
    folder: Path

    @property
    def data(self) -> Data:
        """The made scenes."""
        return read_data(self.data_yaml)


@dataclass(frozen=True)
class Kind:
    """How the steps of a network are done; `side` in pixels."""

    model: str
    precision: PrecisionName
    side: int
    batch: int
    channels_last: bool = True


class EveryBatch:
    """A step after each batch, at one rate."""

    def at(self, counter: int) -> Point:
        """Return what holds at any batch."""
        return Point((0.01, 0.01, 0.01), 0.9, 1)


class Heard(Watch):
    """Keeps the terms of each batch and the norm of each step on the device, besides watching."""

    def __init__(self, precision: Precision) -> None:
        super().__init__(precision)
        self.items: list[torch.Tensor] = []
        self.norms: list[torch.Tensor] = []

    def add(self, counter: int, items: torch.Tensor, names: list[str]) -> None:
        """Take the terms of a batch."""
        super().add(counter, items, names)
        self.items.append(items)

    def add_step(self, counter: int, norm: torch.Tensor) -> None:
        """Take the norm of a step."""
        super().add_step(counter, norm)
        self.norms.append(norm)


class Waits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations called inside that would have the host wait for the device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        self.calls[name] += 1
        if name in WAITING or (name.strip("_").startswith("index") and _has_mask(args)):
            self.waits[name] += 1
        return func(*args, **(kwargs or {}))


def _has_mask(args: tuple[Any, ...]) -> bool:
    indices = args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ()
    return any(one is not None and one.dtype in (torch.bool, torch.uint8) for one in indices)


def build(data: Data, kind: Kind, device: torch.device) -> tuple[Trainer, Wiring]:
    """Return the loop of a run, always from the same weights, ready for its first batch."""
    precision = Precision(kind.precision, device)
    if precision.scale is not None:
        precision.load_state_dict({**precision.state_dict(), "scale": START_SCALE})
    parts = ours(
        data, imgsz=kind.side, batch=kind.batch, model=kind.model, device=device, precision=precision
    )
    network = parts.network
    if not kind.channels_last:
        network.to(memory_format=torch.contiguous_format)
    trainer = parts.trainer(lambda event: None)
    trainer.schedule = EveryBatch()
    if not kind.channels_last:
        trainer.forward = lambda images: network(images.contiguous())
    return trainer, parts.wiring


def made_batch(wiring: Wiring, batch: int, *, number: int = 0) -> Batch:
    """Return noise with boxes, matched and, for a GPU, page-locked, as the loader would hand it out.

    Pictures repeat in a large batch; their boxes do not.
    """
    rng, side = generator(0, 0, number, "gpu-check"), wiring.imgsz
    pictures = rng.integers(0, 256, (min(batch, PICTURES), side, side, 3), dtype=np.uint8)
    items = []
    for place in range(batch):
        sizes = rng.uniform(0.05, 0.5, (BOXES, 2))
        centres = sizes / 2 + rng.uniform(0, 1, (BOXES, 2)) * (1 - sizes)
        classes = rng.integers(0, len(wiring.data.names), BOXES)
        rows = np.column_stack((classes, centres, sizes)).astype(np.float32)
        items.append(Item(pictures[place % PICTURES], rows, f"made {number}.{place}"))
    made = collate(items, index=number)
    shapes = [(side // stride, side // stride) for stride in wiring.strides]
    anchor_t = float(np.float32(wiring.config.hyp.anchor_t))
    matches = assign_targets(made.targets.numpy(), wiring.anchors_grid, shapes, anchor_t)
    made = replace(made, matches=matches)
    return made.pin_memory() if wiring.device.type == "cuda" else made


@dataclass(frozen=True)
class Numbers:
    """The loss of each batch, the norm of the gradients of each step, and the modules given to float32."""

    losses: list[float]
    norms: list[float]
    islands: list[str]


def numbers(data: Data, kind: Kind, device: torch.device, steps: int) -> Numbers:
    """Train a few steps and return what they gave."""
    trainer, wiring = build(data, kind, device)
    heard = trainer.watch = Heard(trainer.precision)
    for index in range(steps):
        trainer.train_batch(made_batch(wiring, kind.batch, number=index))
    losses = torch.stack(heard.items).sum(1).tolist()
    return Numbers(losses, torch.stack(heard.norms).tolist(), list(trainer.sentinel.islands.names))


@dataclass(frozen=True)
class Waited:
    """How many operations a step calls, which of them wait by name, and where CUDA itself saw a wait.

    `places` is None where there is no CUDA to see one.
    """

    num_calls: int
    by_name: dict[str, int]
    places: list[str] | None


def waits(data: Data, kind: Kind, device: torch.device) -> Waited:
    """Look at one step for waits, after steps that make what later ones keep."""
    trainer, wiring = build(data, kind, device)
    batch = made_batch(wiring, kind.batch)
    for index in range(2):
        trainer.train_batch(replace(batch, index=index))
    with Waits() as seen:
        trainer.train_batch(replace(batch, index=2))
    places = None
    if device.type == "cuda":
        places = _seen_by_cuda(trainer, [replace(batch, index=index) for index in (3, 4)])
    return Waited(sum(seen.calls.values()), dict(seen.waits), places)


def _seen_by_cuda(trainer: Trainer, batches: list[Batch]) -> list[str]:
    """Return where a step makes the host wait: none if it runs where each wait is an error."""
    torch.cuda.synchronize()
    try:
        torch.cuda.set_sync_debug_mode("error")
        trainer.train_batch(batches[0])
        return []
    except RuntimeError as error:
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            trainer.train_batch(batches[1])
        frames = [
            frame for frame in traceback.extract_tb(error.__traceback__) if "yolocore" in frame.filename
        ]
        first = f"{_short(frames[-1].filename)}:{frames[-1].lineno}" if frames else reason_of(error)
        return sorted({first, *(f"{_short(one.filename)}:{one.lineno}" for one in told)})
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _short(filename: str) -> str:
    return "/".join(filename.split("/")[-3:])


@dataclass(frozen=True)
class Speed:
    """Images per second of steps whose batch lies ready, and the most memory they took; None on a CPU."""

    images_per_s: float
    allocated_bytes: int | None
    reserved_bytes: int | None


def within_memory(work: Callable[[], Speed], device: torch.device) -> Speed | str:
    """Return what `work` returns, or that memory did not suffice; raises whatever else it raises."""
    try:
        return work()
    except (OutOfMemoryError, torch.OutOfMemoryError):
        return OUT_OF_MEMORY
    except RuntimeError as error:
        if not any(words in str(error) for words in NO_ROOM):
            raise
        return OUT_OF_MEMORY
    finally:
        free(device)


def speed(data: Data, kind: Kind, device: torch.device, *, warm: int, steps: int) -> Speed:
    """Time steps, after some that make what later ones keep."""
    trainer, wiring = build(data, kind, device)
    batch = made_batch(wiring, kind.batch)
    for index in range(warm):
        trainer.train_batch(replace(batch, index=index))
    settle(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    began = time.perf_counter()
    for index in range(warm, warm + steps):
        trainer.train_batch(replace(batch, index=index))
    settle(device)
    seconds = time.perf_counter() - began
    on_cuda = device.type == "cuda"
    return Speed(
        kind.batch * steps / seconds,
        torch.cuda.max_memory_allocated(device) if on_cuda else None,
        torch.cuda.max_memory_reserved(device) if on_cuda else None,
    )


def settle(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free(device: torch.device) -> None:
    """Give back what nobody holds."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
