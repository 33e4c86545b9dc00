"""What a run needs to go on exactly where it was, as plain tensors and JSON in one file.

Readable with `weights_only=True`, so a checkpoint can never run code. It must not know the loop: the trainer
fills a `Snapshot` and takes one back.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import zipfile
import zlib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from yolocore.errors import CheckpointError
from yolocore.train.files import Written, publish
from yolocore.train.trees import mapped

FORMAT = "trainshed-checkpoint-1"
NAME = re.compile(r"e(\d+)-b(\d+)\.ckpt")
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Position:
    """Where the run goes on: the next batch of an epoch, or that epoch's validation.

    `last_step` is the counter (over all epochs) of the last batch that ended in an optimizer step, -1 at
    first.
    """

    epoch: int = 0
    batch: int = 0
    last_step: int = -1
    phase: Literal["train", "validate"] = "train"


@dataclass(frozen=True)
class Best:
    """The best epoch so far by fitness (0.1 mAP50 + 0.9 mAP50-95)."""

    epoch: int
    fitness: float
    map50: float
    map50_95: float


@dataclass
class Snapshot:
    """The whole state of a run between two batches.

    `gradients` are those not yet stepped, by parameter name; `best_weights` is None where the best weights
    are the EMA's own; `rows` are the finished epochs as their events' JSON; `epoch_s` is how long the epoch
    has taken so far; `class_maps` are the last mAP of each class where images are drawn by them; `sentinel`
    holds islands and skipped steps, nothing in older files. `identity`, filled by whoever writes, says which
    run this is (configuration and its hash, architecture, classes, data) and what was resolved at its start
    (image size, batch, anchors, threads, precision, libraries, processor).
    """

    position: Position
    model: Tensors
    ema: Tensors
    ema_updates: int
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    gradients: Tensors
    epoch_sum: torch.Tensor
    epoch_count: int
    best: Best | None
    best_weights: Tensors | None
    stopping: dict[str, Any]
    balance: list[float]
    rows: list[dict[str, Any]]
    identity: dict[str, Any] = field(default_factory=dict)
    epoch_s: float = 0.0
    class_maps: list[float] = field(default_factory=list)
    sentinel: dict[str, Any] = field(default_factory=dict)


TENSOR_FIELDS = ("model", "ema", "optimizer", "scaler", "gradients", "epoch_sum", "best_weights")


def encode(snapshot: Snapshot) -> memoryview:
    """Return the bytes of a checkpoint file."""
    plain = {
        name: value
        for name, value in vars(snapshot).items()
        if name not in (*TENSOR_FIELDS, "position", "best")
    }
    plain["position"] = asdict(snapshot.position)
    plain["best"] = asdict(snapshot.best) if snapshot.best else None
    content: dict[str, Any] = {name: getattr(snapshot, name) for name in TENSOR_FIELDS}
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "json": json.dumps(plain), **content}, buffer)
    return buffer.getbuffer()


def save_checkpoint(path: Path, snapshot: Snapshot) -> Written:
    """Write a checkpoint durably; raises DiskFullError."""
    return publish(path, encode(snapshot))


def load_checkpoint(path: Path) -> Snapshot:
    """Read a checkpoint onto the CPU; raises CheckpointError where it is damaged or foreign."""
    if path.is_file() and not _is_sound(path):
        raise CheckpointError("the checkpoint cannot be read; it is damaged", place=str(path))
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError("there is no checkpoint", place=str(path)) from error
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        raise CheckpointError("the checkpoint cannot be read; it is damaged", place=str(path)) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError("the file is not a checkpoint of this program", place=str(path))
    try:
        plain = json.loads(content["json"])
        position = Position(**plain.pop("position"))
        best = plain.pop("best")
        tensors = {name: content[name] for name in TENSOR_FIELDS}
        return Snapshot(position=position, best=Best(**best) if best else None, **plain, **tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError("the checkpoint lacks a part or has one too many", place=str(path)) from error


def _is_sound(path: Path) -> bool:
    """Tell whether every part of a zip has its checksum: torch does not look."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError):
        return False


def checkpoint_name(position: Position) -> str:
    """Return the file name of a checkpoint; `checkpoints_in` sorts such names, an alphabet does not."""
    return f"e{position.epoch:04d}-b{position.batch:06d}.ckpt"


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder in the order of the run; files of other names are left out."""
    found = [(place, path) for path in folder.glob("*.ckpt") if (place := named_place(path)) is not None]
    return [path for _, path in sorted(found)]


def named_place(path: Path) -> tuple[int, int] | None:
    """Return the epoch and the batch that a checkpoint's name speaks of, None for another file's."""
    match = NAME.fullmatch(path.name)
    return (int(match[1]), int(match[2])) if match else None


def load_into(module: torch.nn.Module, tensors: Tensors, what: str) -> None:
    """Copy a state into a module in place; raises CheckpointError where keys or shapes differ."""
    own = module.state_dict()
    wrong = sorted(own.keys() ^ tensors.keys())
    wrong += sorted(key for key in own.keys() & tensors.keys() if own[key].shape != tensors[key].shape)
    if wrong:
        raise CheckpointError(
            f"the {what} in the checkpoint is of another network",
            place=wrong[0],
            value=f"{len(wrong)} entries",
        )
    with torch.no_grad():
        for key, tensor in own.items():
            tensor.copy_(tensors[key])


def cloned(snapshot: Snapshot) -> Snapshot:
    """Return a snapshot on the CPU that shares no tensor with the run, but for the best weights' own copy."""
    copies = {
        name: mapped(getattr(snapshot, name), _copied) for name in TENSOR_FIELDS if name != "best_weights"
    }
    return replace(snapshot, **copies)


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True)


def detached(tensors: Tensors) -> Tensors:
    """Return the tensors themselves, without their graph, for writing."""
    return {key: value.detach() for key, value in tensors.items()}
