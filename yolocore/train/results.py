"""The table of finished epochs as YOLOv5 writes it, so that its tools and people's scripts read ours.

Pure text; it must not know where the numbers come from.
"""

from __future__ import annotations

from collections.abc import Sequence

from yolocore.spec.events import EpochDone

COLUMNS = (
    "epoch",
    "train/box_loss",
    "train/obj_loss",
    "train/cls_loss",
    "metrics/precision",
    "metrics/recall",
    "metrics/mAP_0.5",
    "metrics/mAP_0.5:0.95",
    "val/box_loss",
    "val/obj_loss",
    "val/cls_loss",
    "x/lr0",
    "x/lr1",
    "x/lr2",
)


def results_csv(rows: Sequence[EpochDone]) -> str:
    """Return results.csv: 20 characters a field, right-aligned, five significant digits."""
    lines = [",".join(f"{name:>20}" for name in COLUMNS)]
    for row in rows:
        val = row.val
        numbers = [row.epoch, row.train.box, row.train.obj, row.train.cls]
        numbers += [row.precision, row.recall, row.map50, row.map50_95]
        numbers += [val.box, val.obj, val.cls] if val else [0.0, 0.0, 0.0]
        lines.append(",".join(_field(number) for number in [*numbers, *row.lr]))
    return "\n".join(lines) + "\n"


def _field(number: float | None) -> str:
    return f"{float('nan') if number is None else number:>20.5g}"
