"""The figures a list shows of a running job: those of its row, or of its last batch where that is newer.

The row is as fresh as the worker's last heartbeat, the stream a fraction of a second old. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.events.history import WireEvent

Snapshot = Mapping[str, Any]
"""The public JSON of a job; it has at least id, status, attempt and revision."""

_FIGURES = ("epoch", "batch", "batches", "loss", "lr", "images_per_s")


def with_batch(snapshot: Snapshot, batch: WireEvent | None) -> Snapshot:
    """Return the snapshot with the progress of a batch event, unless it is of another attempt or older."""
    if batch is None or snapshot["status"] != "running" or batch.id.attempt != snapshot["attempt"]:
        return snapshot
    told = batch.values
    progress = dict(snapshot["progress"] or {})
    if _place(told) <= _place(progress):
        return snapshot
    return {**snapshot, "progress": {**progress, **{name: told.get(name) for name in _FIGURES}}}


def _place(figures: Mapping[str, Any]) -> tuple[int, int]:
    epoch, batch = figures.get("epoch"), figures.get("batch")
    return (-1 if epoch is None else epoch, -1 if batch is None else batch)
