"""Which figures a list shows: those of the row, or of the last batch of the attempt where it is newer."""

from __future__ import annotations

from typing import Any

import pytest

from api.domain.wire import EventId
from api.events.figures import with_batch
from api.events.history import WireEvent


def event(attempt: int, epoch: int, batch: int) -> WireEvent:
    values = {"type": "batch", "epoch": epoch, "batch": batch, "batches": 9, "loss": {"box": 1.0}}
    return WireEvent(EventId(attempt, 5), values)


def snapshot(**values: Any) -> dict[str, Any]:
    row = {"id": "job_1", "status": "running", "attempt": 2, "revision": 3, "progress": None}
    return {**row, **values}


@pytest.mark.parametrize(
    ("row", "batch", "is_taken"),
    [
        (snapshot(), event(2, 0, 0), True),
        (snapshot(progress={"epoch": 0, "batch": 3, "eta_s": 1.0}), event(2, 0, 4), True),
        (snapshot(progress={"epoch": 0, "batch": 3}), event(2, 1, 0), True),
        (snapshot(progress={"epoch": None, "last_epoch": 4}), event(2, 5, 0), True),
        (snapshot(progress={"epoch": 1, "batch": 3}), event(2, 1, 3), False),
        (snapshot(progress={"epoch": 1, "batch": 3}), event(2, 0, 8), False),
        (snapshot(), event(1, 7, 7), False),
        (snapshot(), event(3, 7, 7), False),
        (snapshot(status="queued"), event(2, 7, 7), False),
        (snapshot(status="succeeded"), event(2, 7, 7), False),
        (snapshot(), None, False),
    ],
)
def test_the_newer_figures_are_shown(row: dict[str, Any], batch: WireEvent | None, is_taken: bool) -> None:
    before = {**row, "progress": dict(row["progress"] or {})}
    shown = with_batch(row, batch)
    assert (shown is not row) == is_taken
    if is_taken and batch is not None:
        kept = {name: value for name, value in before["progress"].items() if name not in batch.values}
        assert shown["progress"].items() >= kept.items()
        assert (shown["progress"]["epoch"], shown["progress"]["batch"]) == (
            batch.values["epoch"],
            batch.values["batch"],
        )
        assert {**shown, "progress": None} == {**row, "progress": None}
