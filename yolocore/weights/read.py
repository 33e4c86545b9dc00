"""Reads weights that others wrote: YOLOv5 checkpoints of whole modules, plain state dicts, our own files.

Nothing in the file is ever run or imported; see `pickled`. Must not know networks or training.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yolocore.errors import CheckpointError
from yolocore.weights.archive import Archive
from yolocore.weights.pickled import Record, TensorRecord, load

MAX_DEPTH = 64
MAX_PARTS = 20_000  # a few shared lists can stand for endlessly many
NUMBERS = (str, int, float, bool, type(None))


@dataclass(frozen=True)
class ForeignWeights:
    """What a checkpoint says of its network.

    `tensors` by state-dict key, floating-point ones in fp32; `strides` in pixels a cell, `anchors` (levels,
    anchors, 2) in pixels; `not_finite` names tensors with NaN or infinity. What the file does not say is None
    or empty.
    """

    tensors: dict[str, Tensor]
    entry: str
    names: tuple[str, ...] = ()
    strides: tuple[float, ...] = ()
    anchors: Tensor | None = None
    num_classes: int | None = None
    yaml: dict[str, Any] | None = None
    epoch: int | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    not_finite: tuple[str, ...] = ()


def read_weights(path: Path, *, entry: str | None = None) -> ForeignWeights:
    """Read a checkpoint's weights: its `entry`, by default "ema" if it has one, else "model".

    Raises CheckpointError; the code names what the file is instead, or what is wrong with it.
    """
    with closing(Archive(path)) as archive:
        content = load(archive.pickle(), archive.check_storage)
        name, model = _model(content, entry, path)
        records = dict(_entries(model, "", 0, _Budget()))
        if not records:
            raise CheckpointError(
                "there are no weights in the checkpoint", code="CHECKPOINT_NO_MODEL", place=path.name
            )
        tensors = {key: _plain(archive.tensor(record)) for key, record in records.items()}
        state = _state(model) if isinstance(model, Record) else content
        stride = state.get("stride")
        strides = (
            archive.tensor(stride).tolist() if isinstance(stride, TensorRecord) else state.get("strides")
        )
    strides = _floats(strides)
    names = _names(state.get("names"))
    return ForeignWeights(
        tensors=tensors,
        entry=name,
        names=names,
        strides=strides,
        anchors=_anchors(tensors, strides),
        num_classes=_whole(state.get("nc")) or len(names) or None,
        yaml=_simple(state.get("yaml"), 0, _Budget()) if isinstance(state.get("yaml"), dict) else None,
        epoch=_whole(content.get("epoch")),
        metadata=_metadata(content),
        not_finite=tuple(key for key, tensor in tensors.items() if not torch.isfinite(tensor).all()),
    )


def _model(content: Any, entry: str | None, path: Path) -> tuple[str, Any]:
    if isinstance(content, dict):
        for name in (entry,) if entry else ("ema", "model"):
            if isinstance(content.get(name), Record | dict):
                return name, content[name]
        if content and entry is None and all(isinstance(value, TensorRecord) for value in content.values()):
            return "", content
    raise CheckpointError(
        "the file holds no model", code="CHECKPOINT_NO_MODEL", place=path.name, value=entry or ""
    )


def _state(module: Record) -> dict[Any, Any]:
    return module.state if isinstance(module.state, dict) else {}


class _Budget:
    """Counts the parts of a walk, which may meet a shared part again and again."""

    def __init__(self) -> None:
        self._left = MAX_PARTS

    def spend(self, depth: int) -> None:
        self._left -= 1
        if self._left < 0 or depth > MAX_DEPTH:
            raise CheckpointError(
                "the parts of the checkpoint are too many or too deeply nested", code="CHECKPOINT_TOO_LARGE"
            )


def _entries(module: Any, prefix: str, depth: int, budget: _Budget) -> Iterator[tuple[str, TensorRecord]]:
    """Yield keys and tensors as `state_dict` would: parameters, kept buffers, then children."""
    budget.spend(depth)
    if isinstance(module, dict):
        yield from ((key, value) for key, value in module.items() if _is_entry(key, value))
        return
    state = _state(module)
    dropped = state.get("_non_persistent_buffers_set")
    for group in ("_parameters", "_buffers"):
        for key, value in _dict(state.get(group)).items():
            kept = group == "_parameters" or not (isinstance(dropped, set) and key in dropped)
            if _is_entry(key, value) and kept:
                yield f"{prefix}{key}", value
    for key, child in _dict(state.get("_modules")).items():
        if isinstance(child, Record):
            yield from _entries(child, f"{prefix}{key}.", depth + 1, budget)


def _is_entry(key: Any, value: Any) -> bool:
    return isinstance(key, str) and isinstance(value, TensorRecord)


def _dict(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _plain(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _names(value: Any) -> tuple[str, ...]:
    if isinstance(value, dict):
        value = list(value.values())
    return tuple(str(name) for name in value if type(name) in (str, int)) if isinstance(value, list) else ()


def _floats(value: Any) -> tuple[float, ...]:
    return tuple(float(x) for x in value if type(x) in (int, float)) if isinstance(value, list) else ()


def _whole(value: Any) -> int | None:
    return value if type(value) is int else None


def _anchors(tensors: dict[str, Tensor], strides: tuple[float, ...]) -> Tensor | None:
    """Return the head's anchors in pixels; they are stored in cells."""
    for key, tensor in tensors.items():
        if key.endswith(".anchors") and tensor.ndim == 3 and len(tensor) == len(strides):
            return tensor * torch.tensor(strides).view(-1, 1, 1)
    return None


def _simple(value: Any, depth: int, budget: _Budget) -> Any:
    """Return plain values only; what is not plain becomes None."""
    budget.spend(depth)
    if type(value) in NUMBERS:
        return value
    if isinstance(value, list | tuple):
        return [_simple(item, depth + 1, budget) for item in value]
    if isinstance(value, dict):
        return {str(key): _simple(item, depth + 1, budget) for key, item in value.items()}
    return None


def _metadata(content: dict[Any, Any]) -> dict[str, Any]:
    return {str(key): value for key, value in content.items() if type(value) in (str, int, float)}
