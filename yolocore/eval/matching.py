"""Which detection answers for which label, for the metrics and for the confusion matrix.

Works on one picture's rows; it must not know where they come from, nor what is made of the result.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolocore.ops.boxes import EPS

Floats = NDArray[np.floating[Any]]
IOU_THRESHOLDS: NDArray[np.float32] = np.linspace(0.5, 0.95, 10).astype(np.float32)
NO_LABEL = -1


def pairwise_iou(detections: Floats, labels: Floats) -> Floats:
    """Return the (labels, detections) IoU, bit for bit that of `box_iou`; rows as in `best_labels`."""
    x1, y1, x2, y2 = (labels[:, column, None] for column in range(1, 5))
    u1, v1, u2, v2 = detections[:, :4].T
    inter = (np.minimum(x2, u2) - np.maximum(x1, u1)).clip(0)
    inter *= (np.minimum(y2, v2) - np.maximum(y1, v1)).clip(0)
    iou: Floats = inter / ((x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - inter + inter.dtype.type(EPS))
    return iou


def best_labels(
    detections: Floats, labels: Floats, pairwise: Floats | None = None
) -> tuple[NDArray[np.int64], Floats]:
    """Return for each of n detections its best label of the same class (n,) and their IoU (n,).

    `detections` (n, 6) x1, y1, x2, y2, score, class; `labels` (m, 5) class, x1, y1, x2, y2. Without a label
    of its class a detection has label -1 and IoU -1. `pairwise` is what `pairwise_iou` returns for them, if
    that is known already.
    """
    if len(detections) == 0 or len(labels) == 0:
        return np.full(len(detections), NO_LABEL, np.int64), np.full(len(detections), -1.0, np.float32)
    pairwise = pairwise_iou(detections, labels) if pairwise is None else pairwise
    iou = np.where(labels[:, 0:1] == detections[:, 5], pairwise, np.float32(-1.0))
    label = len(labels) - 1 - iou[::-1].argmax(0)
    best = iou[label, np.arange(len(detections))]
    return np.where(best < 0, NO_LABEL, label), best


def first_hits(
    label: NDArray[np.int64], iou: Floats, thresholds: Floats = IOU_THRESHOLDS
) -> NDArray[np.bool_]:
    """Return (n, t): is a detection the first, in list order, to reach the threshold on its best label.

    Label numbers may run over many pictures, so a whole validation set can be judged in one call. The first
    one counts, not the one that fits best, and a detection never falls back to its second-best label: the
    rule that published YOLOv5 figures were made with.
    """
    hits = np.zeros((len(label), len(thresholds)), np.bool_)
    order = np.argsort(label, kind="stable")
    order = order[label[order] != NO_LABEL]
    if len(order) == 0:
        return hits
    reached = iou[order, None] >= thresholds
    so_far = reached.cumsum(0)
    starts = np.append(True, label[order][1:] != label[order][:-1])
    before = (so_far - reached)[starts][starts.cumsum() - 1]
    hits[order] = reached & (so_far - before == 1)
    return hits


def match_detections(
    detections: Floats, labels: Floats, thresholds: Floats = IOU_THRESHOLDS
) -> NDArray[np.bool_]:
    """Return (n, t): which detections of one picture are correct at which IoU threshold.

    Shapes as in `best_labels`; detections are taken in the given order, normally best score first.
    """
    return first_hits(*best_labels(detections, labels), thresholds)


class ConfusionMatrix:
    """Counts of (predicted class, true class), the last row and column standing for background.

    Every detection above the score threshold that finds no label is counted as (class, background), also in
    pictures without labels or without any match; counting fewer would hide false positives.
    """

    def __init__(self, num_classes: int, *, conf_thres: float = 0.25, iou_thres: float = 0.45) -> None:
        self.num_classes = num_classes
        self.conf_thres = conf_thres
        self.iou_thres = iou_thres
        self.counts = np.zeros((num_classes + 1, num_classes + 1), np.int64)

    def add(self, detections: Floats | None, labels: Floats, pairwise: Floats | None = None) -> None:
        """Count one picture: `detections` (n, 6) or None, `labels` (m, 5), `pairwise` as in `best_labels`."""
        true = labels[:, 0].astype(np.int64)
        if detections is None:
            detections = np.zeros((0, 6), np.float32)
        certain = detections[:, 4] > np.float32(self.conf_thres)
        pairwise = pairwise_iou(detections, labels) if pairwise is None else pairwise
        detections = detections[certain]
        predicted = detections[:, 5].astype(np.int64)
        of_label = self._one_to_one(pairwise[:, certain])
        matched = of_label >= 0
        rows = np.where(matched, predicted[of_label] if len(predicted) else 0, self.num_classes)
        np.add.at(self.counts, (rows, true), 1)
        spare = np.ones(len(predicted), np.bool_)
        spare[of_label[matched]] = False
        self.counts[:, self.num_classes] += np.bincount(predicted[spare], minlength=self.num_classes + 1)

    def _one_to_one(self, iou: Floats) -> NDArray[np.int64]:
        """Return per label the detection it is paired with, or -1: regardless of class, by IoU (m, n)."""
        num_labels, num_detections = iou.shape
        of_label = np.full(num_labels, -1, np.int64)
        if iou.size == 0:
            return of_label
        iou = np.where(iou > np.float32(self.iou_thres), iou, np.float32(-1.0))
        label = num_labels - 1 - iou[::-1].argmax(0)
        best = iou[label, np.arange(num_detections)]
        order = np.argsort(best, kind="stable")
        order = order[best[order] >= 0]
        # Rising IoU: where several detections want one label, the last written is the best.
        of_label[label[order]] = order
        return of_label
