"""Suppression, matching and average precision the textbook way: full sort, one pass, loops.

For each picture all candidates are sorted and suppressed at once; for each picture and threshold pairs are
sorted and thinned out; for each class and threshold the area is taken. It must not use `yolocore.eval` or
`yolocore.ops.nms`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.floating[Any]]
IOU_THRESHOLDS = torch.linspace(0.5, 0.95, 10)
_MAX_CANDIDATES, _MAX_DET, _CLASS_DISTANCE_PX = 30_000, 300, 7680


def textbook_nms(
    decoded: Tensor, conf_thres: float = 0.001, iou_thres: float = 0.6, *, time_limit: bool = False
) -> list[Tensor]:
    """Return per image rows (k, 6) x1, y1, x2, y2, score, class of `decoded` (b, n, 5 + classes).

    With `time_limit` the images left after 0.5 s and 0.05 s an image come back empty, as in YOLOv5.
    """
    import torchvision

    began = time.perf_counter()
    limit_s = 0.5 + 0.05 * len(decoded)
    found = [torch.zeros((0, 6)) for _ in decoded]
    for number, rows in enumerate(decoded):
        rows = rows[rows[:, 4] > conf_thres]
        if len(rows) == 0:
            continue
        rows = rows.clone()
        rows[:, 5:] *= rows[:, 4:5]
        boxes = _corners(rows[:, :4])
        if decoded.shape[2] > 6:
            row, cls = (rows[:, 5:] > conf_thres).nonzero(as_tuple=False).T
            rows = torch.cat((boxes[row], rows[row, cls + 5, None], cls[:, None].float()), 1)
        else:
            rows = torch.cat((boxes, rows[:, 5:6], torch.zeros_like(rows[:, 5:6])), 1)[
                rows[:, 5] > conf_thres
            ]
        rows = rows[rows[:, 4].argsort(descending=True, stable=True)[:_MAX_CANDIDATES]]
        apart = rows[:, :4] + rows[:, 5:6] * _CLASS_DISTANCE_PX
        found[number] = rows[torchvision.ops.nms(apart, rows[:, 4], iou_thres)[:_MAX_DET]]
        if time_limit and time.perf_counter() - began > limit_s:
            break
    return found


def textbook_correct(detections: Tensor, labels: Tensor) -> NDArray[np.bool_]:
    """Return (n, 10): which of n detections are correct at which threshold; rows as in `textbook_nms`.

    `labels` (m, 5) class, x1, y1, x2, y2.
    """
    correct = np.zeros((len(detections), len(IOU_THRESHOLDS)), np.bool_)
    iou = _box_iou(labels[:, 1:], detections[:, :4])
    same = labels[:, 0:1] == detections[:, 5]
    for column, threshold in enumerate(IOU_THRESHOLDS):
        label, detection = torch.where((iou >= threshold) & same)
        if len(label) == 0:
            continue
        pairs = torch.stack((label.float(), detection.float(), iou[label, detection]), 1).numpy()
        if len(pairs) > 1:
            pairs = pairs[pairs[:, 2].argsort()[::-1]]
            pairs = pairs[np.unique(pairs[:, 1], return_index=True)[1]]
            pairs = pairs[np.unique(pairs[:, 0], return_index=True)[1]]
        correct[pairs[:, 1].astype(int), column] = True
    return correct


@dataclass
class TextbookJudge:
    """Verdicts picture by picture, and the average precision of all."""

    correct: list[NDArray[np.bool_]] = field(default_factory=list)
    rows: list[NDArray[np.float32]] = field(default_factory=list)
    true: list[NDArray[np.float32]] = field(default_factory=list)

    def add(self, detections: Tensor, labels: Tensor) -> None:
        """Take one picture; shapes as in `textbook_correct`."""
        self.correct.append(textbook_correct(detections, labels))
        self.rows.append(detections[:, 4:6].numpy())
        self.true.append(labels[:, 0].numpy())

    def ap(self) -> Floats:
        """Return the AP (classes with labels, 10), and compute the curves at IoU 0.5 on the way."""
        correct, rows = np.concatenate(self.correct), np.concatenate(self.rows)
        order = np.argsort(-rows[:, 0], kind="stable")
        return _ap_of_classes(correct[order], rows[order], np.concatenate(self.true))


def _ap_of_classes(correct: NDArray[np.bool_], rows: Floats, true: Floats) -> Floats:
    classes, counts = np.unique(true, return_counts=True)
    at = np.linspace(0, 1, 1000)
    ap = np.zeros((len(classes), correct.shape[1]))
    for row, (cls, count) in enumerate(zip(classes, counts, strict=True)):
        mine = rows[:, 1] == cls
        if not mine.any():
            continue
        false, hits = (1 - correct[mine]).cumsum(0), correct[mine].cumsum(0)
        recall, precision = hits / (count + 1e-16), hits / (hits + false)
        np.interp(-at, -rows[mine, 0], recall[:, 0], left=0)
        np.interp(-at, -rows[mine, 0], precision[:, 0], left=1)
        for column in range(correct.shape[1]):
            ap[row, column] = _area(recall[:, column], precision[:, column])
    return ap


def _area(recall: Sequence[float] | Floats, precision: Sequence[float] | Floats) -> float:
    xs = np.concatenate(([0.0], recall, [1.0]))
    ys = np.concatenate(([1.0], precision, [0.0]))
    ys = np.flip(np.maximum.accumulate(np.flip(ys)))
    at = np.linspace(0, 1, 101)
    return float(np.trapezoid(np.interp(at, xs, ys), at))


def _corners(boxes: Tensor) -> Tensor:
    half = boxes[:, 2:4] / 2
    return torch.cat((boxes[:, :2] - half, boxes[:, :2] + half), 1)


def _box_iou(a: Tensor, b: Tensor) -> Tensor:
    (a1, a2), (b1, b2) = a.unsqueeze(1).chunk(2, 2), b.unsqueeze(0).chunk(2, 2)
    inter = (torch.min(a2, b2) - torch.max(a1, b1)).clamp(0).prod(2)
    return inter / ((a2 - a1).prod(2) + (b2 - b1).prod(2) - inter + 1e-7)
