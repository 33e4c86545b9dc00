"""Whole small runs of the core in tests: a request, what it tells, and wishes made at a chosen batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from tests.support.shapes import TINY_MODEL
from yolocore.run import train
from yolocore.spec.config import parse_config
from yolocore.spec.events import TrainEvent
from yolocore.train.checkpoint import checkpoints_in
from yolocore.train.protocols import Wish
from yolocore.train.request import RunRequest, RunResult, RunSettings

SETTINGS: dict[str, Any] = {
    "epochs": 3,
    "imgsz": 64,
    "batch": 3,
    "nominal_batch": 9,
    "warmup_min_batches": 5,
    "threads": 1,
    "hyp": {"warmup_epochs": 1.0, "mixup": 0.3, "degrees": 5.0},
}


@dataclass
class WishAt:
    """Wishes something at the n-th question, counted from 1."""

    wish: Wish | None = None
    question: int = 0
    asked: int = 0

    def poll(self) -> Wish | None:
        self.asked += 1
        return self.wish if self.wish is not None and self.asked >= self.question else None


@dataclass
class Told:
    """What a run told, and how it ended."""

    result: RunResult
    events: list[TrainEvent] = field(default_factory=list)

    def of(self, kind: str) -> list[Any]:
        """Return the events of one type."""
        return [event for event in self.events if event.type == kind]


def request(folder: Path, data_yaml: Path, **config: Any) -> RunRequest:
    """Return a request for a tiny run; `config` is laid over the settings."""
    return RunRequest(
        folder=folder,
        config=parse_config({**SETTINGS, **config}),
        architecture_name="tiny.yaml",
        architecture_text=TINY_MODEL,
        data_yaml=data_yaml,
        settings=RunSettings(loader_threads=1, checkpoint_every_s=1e9, pictures=False),
    )


def do_run(
    asked: RunRequest,
    control: WishAt | None = None,
    watch: Callable[[TrainEvent], None] | None = None,
    **settings: Any,
) -> Told:
    """Do a run and keep what it told; `settings` replace those of the request."""
    events: list[TrainEvent] = []

    def emit(event: TrainEvent) -> None:
        events.append(event)
        if watch is not None:
            watch(event)

    asked = replace(asked, settings=replace(asked.settings, **settings))
    result = train(asked, emit=emit, control=control or WishAt())
    return Told(result, events)


def weights_hash(path: Path) -> str:
    """Return a hash of the tensors of a file of weights or of a checkpoint's model and average."""
    content = torch.load(path, weights_only=True, map_location="cpu")
    digest = hashlib.sha256()
    for part in ("model", "ema"):
        for key, value in content.get(part, {}).items():
            digest.update(key.encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def newest_checkpoint(folder: Path) -> Path:
    """Return the last checkpoint of a run."""
    return checkpoints_in(folder / "checkpoints")[-1]
