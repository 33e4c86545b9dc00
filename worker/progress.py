"""Fold events into what a job's row shows: where the run is, how fast, how long still, and its best epoch.

Pure: events in, values out. It must not know SQL nor the journal's file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from api.domain.figures import best_of

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Progress:
    """What is known of a run so far; `best` holds the figures of the best epoch as a job shows them."""

    phase: str | None = None
    epochs: int | None = None
    batch: Event | None = None
    first: Event | None = None
    last_epoch: int | None = None
    best: Event | None = None

    def values(self) -> dict[str, Any] | None:
        """Return the row's JSON, None before there is anything to show."""
        if self.batch is None and self.last_epoch is None:
            return None
        shown: dict[str, Any] = {"epochs": self.epochs, "last_epoch": self.last_epoch, "eta_s": self.eta_s()}
        if self.batch is not None:
            names = ("epoch", "batch", "batches", "loss", "lr", "images_per_s")
            shown |= {name: self.batch.get(name) for name in names}
        return shown

    def num_batches(self) -> int:
        """Return how many batches this attempt has done, as far as its events tell (the first tells of 1)."""
        if self.batch is None or self.first is None:
            return 0
        per_epoch = float(self.batch["batches"])
        return 1 + round((_position(self.batch) - _position(self.first)) * per_epoch)

    def eta_s(self) -> float | None:
        """Return the seconds still to go at this attempt's average speed, None before there is one."""
        if self.batch is None or self.first is None or not self.epochs:
            return None
        done = _position(self.batch) - _position(self.first)
        elapsed_s = float(self.batch["ts"]) - float(self.first["ts"])
        if done <= 0 or elapsed_s <= 0:
            return None
        left = max(0.0, self.epochs - _position(self.batch))
        return round(elapsed_s * left / done, 1)


def fold(progress: Progress, event: Event) -> Progress:
    """Return the progress after one more event."""
    kind = event["type"]
    if kind == "batch":
        return replace(progress, batch=event, first=progress.first or event)
    if kind == "phase":
        return replace(progress, phase=event["phase"])
    if kind == "start":
        return replace(progress, epochs=event["epochs"])
    if kind == "epoch":
        best = best_of(event["epoch"], epoch_values(event)) if event["best"] else progress.best
        return replace(progress, epochs=event["epochs"], last_epoch=event["epoch"], best=best)
    return progress


def epoch_values(event: Event) -> dict[str, Any]:
    """Return the payload of an epoch event: what the row of that epoch keeps."""
    return {name: value for name, value in event.items() if name not in ("v", "seq", "ts", "type")}


def _position(batch: Event) -> float:
    """Return how many epochs are done, in fractions."""
    return float(batch["epoch"]) + (float(batch["batch"]) + 1.0) / float(batch["batches"])
