"""Epochs and batches as tables in the layout of the reference's results.csv and, where it has one, its names.

So scripts that read the one read the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

_WIDTH = 20
_LOSSES = ("box", "obj", "cls")
COLUMNS = (
    "epoch",
    *(f"train/{part}_loss" for part in _LOSSES),
    "metrics/precision",
    "metrics/recall",
    "metrics/mAP_0.5",
    "metrics/mAP_0.5:0.95",
    *(f"val/{part}_loss" for part in _LOSSES),
    *(f"x/lr{group}" for group in range(3)),
)

BATCH_COLUMNS = (
    "epoch",
    "batch",
    *(f"train/{part}_loss" for part in _LOSSES),
    *(f"x/lr{group}" for group in range(3)),
    "images_per_s",
)


def _losses(parts: Any) -> list[float | None]:
    return [parts.get(name) for name in _LOSSES] if isinstance(parts, Mapping) else [None] * 3


def figures(row: Mapping[str, Any]) -> list[float | None]:
    """Return the values of one epoch's payload in the order of COLUMNS, without the epoch."""
    rates = list(row.get("lr") or [])
    metrics = [row.get(name) for name in ("precision", "recall", "map50", "map50_95")]
    return [*_losses(row.get("train")), *metrics, *_losses(row.get("val")), *(rates + [None] * 3)[:3]]


def _number(value: float | None) -> str:
    return f"{math.nan if value is None else value:.5g}"


def results_csv(rows: Iterable[tuple[int, Mapping[str, Any]]]) -> str:
    """Return the table: fields right-aligned to 20 characters, numbers with five significant digits."""
    lines = [table_head(COLUMNS)]
    lines += [_line([str(epoch), *map(_number, figures(values))]) for epoch, values in rows]
    return "".join(lines)


def table_head(columns: Iterable[str]) -> str:
    """Return the first line of a table."""
    return _line(columns)


def batch_line(batch: Mapping[str, Any]) -> str:
    """Return the line of a batch event in the order of BATCH_COLUMNS."""
    rates = list(batch.get("lr") or [])
    numbers = [*_losses(batch.get("loss")), *(rates + [None] * 3)[:3], batch.get("images_per_s")]
    return _line([str(batch["epoch"]), str(batch["batch"]), *map(_number, numbers)])


def _line(cells: Iterable[str]) -> str:
    return ",".join(f"{cell:>{_WIDTH}}" for cell in cells) + "\n"
