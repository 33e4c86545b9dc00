"""Average precision, the working point and the curves: what a set of judged detections is worth.

Functions of arrays; they must not know pictures, networks or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolocore.eval.matching import IOU_THRESHOLDS, ConfusionMatrix, match_detections

__all__ = [
    "IOU_THRESHOLDS",
    "ClassCurves",
    "ConfusionMatrix",
    "DetectionMetrics",
    "Judged",
    "average_precision",
    "fitness",
    "match_detections",
    "summarize",
]

Floats = NDArray[np.floating[Any]]
_EPS = 1e-16
_NUM_POINTS = 1000
_SMOOTHING = 0.1
_FITNESS_WEIGHTS = (0.1, 0.9)


@dataclass(frozen=True)
class Judged:
    """Detections of a whole set with their verdicts, and the classes of all labels.

    `correct` (n, t) at each IoU threshold, `score` (n,), `predicted` (n,) classes, `true` (m,) classes of
    labels.
    """

    correct: NDArray[np.bool_]
    score: Floats
    predicted: NDArray[np.int64]
    true: NDArray[np.int64]


@dataclass(frozen=True)
class ClassCurves:
    """Curves at IoU 0.5 of the c classes that have labels, over 1000 points from 0 to 1.

    `precision`, `recall`, `f1` (c, 1000) over the score; `precision_at_recall` (c, 1000) over the recall.
    """

    at: Floats
    precision: Floats
    recall: Floats
    f1: Floats
    precision_at_recall: Floats


@dataclass(frozen=True)
class DetectionMetrics:
    """Figures of a validation pass.

    `precision`, `recall`, `map50`, `map50_95` are means over the classes with labels, at the score
    `best_score` where the smoothed mean F1 is highest. Per-class arrays (c,) follow `classes`; `ap` is (c, t)
    by IoU threshold. `class_maps` (num_classes,) holds each class's mAP50-95, the mean for classes without
    labels.
    """

    precision: float
    recall: float
    map50: float
    map50_95: float
    best_score: float
    classes: NDArray[np.int64]
    num_labels: NDArray[np.int64]
    class_precision: Floats
    class_recall: Floats
    class_f1: Floats
    true_positives: Floats
    false_positives: Floats
    ap: Floats
    class_maps: Floats
    curves: ClassCurves

    @property
    def fitness(self) -> float:
        """The single figure by which the best epoch is chosen."""
        return fitness(self.map50, self.map50_95)


def fitness(map50: float, map50_95: float) -> float:
    """Return 0.1 mAP50 + 0.9 mAP50-95."""
    return _FITNESS_WEIGHTS[0] * map50 + _FITNESS_WEIGHTS[1] * map50_95


def average_precision(recall: Floats, precision: Floats) -> tuple[float, Floats, Floats]:
    """Return the AP and the envelope (precision, recall) of one class at one threshold.

    `recall` (n,) rising, `precision` (n,). The precision is made non-increasing from the right; the area is
    taken by trapezoids over 101 evenly spaced recalls (COCO's points, joined linearly).
    """
    envelope_recall = np.concatenate(([0.0], recall, [1.0]))
    envelope = np.concatenate(([1.0], precision, [0.0]))
    envelope = np.maximum.accumulate(envelope[::-1])[::-1]
    at = np.linspace(0, 1, 101)
    return float(np.trapezoid(np.interp(at, envelope_recall, envelope), at)), envelope, envelope_recall


def smooth(values: Floats, fraction: float = _SMOOTHING) -> Floats:
    """Return `values` (n,) under a box filter over about 2 * `fraction` of them, edges repeated."""
    width = round(len(values) * fraction * 2) // 2 + 1
    edge = np.ones(width // 2)
    padded = np.concatenate((edge * values[0], values, edge * values[-1]))
    return np.convolve(padded, np.ones(width) / width, mode="valid")


def summarize(judged: Judged, num_classes: int) -> DetectionMetrics:
    """Compute all figures from judged detections.

    A class with labels and no detection scores 0. Without labels, or without any correct detection, the means
    are 0 and nothing fails.
    """
    classes, num_labels = np.unique(judged.true, return_counts=True)
    order = np.argsort(-judged.score, kind="stable")
    correct, score, predicted = judged.correct[order], judged.score[order], judged.predicted[order]
    num_thresholds = judged.correct.shape[1]
    at = np.linspace(0, 1, _NUM_POINTS)
    ap = np.zeros((len(classes), num_thresholds))
    curves = np.zeros((3, len(classes), _NUM_POINTS))
    for row, cls in enumerate(classes):
        mine = predicted == cls
        if mine.any():
            ap[row], curves[:, row] = _class_figures(correct[mine], score[mine], int(num_labels[row]), at)
    precision, recall, precision_at_recall = curves
    f1 = 2 * precision * recall / (precision + recall + _EPS)
    best = int(smooth(f1.mean(0)).argmax()) if len(classes) else 0
    class_precision, class_recall = precision[:, best], recall[:, best]
    true_positives = np.round(class_recall * num_labels)
    any_correct = bool(judged.correct.any())
    map50, map50_95 = _mean(ap[:, 0]) * any_correct, _mean(ap) * any_correct
    class_maps = np.full(num_classes, map50_95)
    if any_correct:
        class_maps[classes] = ap.mean(1)
    return DetectionMetrics(
        precision=_mean(class_precision) * any_correct,
        recall=_mean(class_recall) * any_correct,
        map50=map50,
        map50_95=map50_95,
        best_score=float(at[best]),
        classes=classes,
        num_labels=num_labels,
        class_precision=class_precision,
        class_recall=class_recall,
        class_f1=f1[:, best],
        true_positives=true_positives,
        false_positives=np.round(true_positives / (class_precision + _EPS) - true_positives),
        ap=ap,
        class_maps=class_maps,
        curves=ClassCurves(at, precision, recall, f1, precision_at_recall),
    )


def _class_figures(
    correct: NDArray[np.bool_], score: Floats, num_labels: int, at: Floats
) -> tuple[Floats, Floats]:
    """Return one class's AP (t,) and (3, 1000) curves: precision, recall, precision at recall."""
    hits = correct.cumsum(0)
    recall = hits / (num_labels + _EPS)
    precision = hits / np.arange(1, len(hits) + 1)[:, None]
    results = [average_precision(recall[:, t], precision[:, t]) for t in range(correct.shape[1])]
    _, envelope, envelope_recall = results[0]
    curves = np.stack(
        (
            np.interp(-at, -score, precision[:, 0], left=1),
            np.interp(-at, -score, recall[:, 0], left=0),
            np.interp(at, envelope_recall, envelope),
        )
    )
    return np.array([area for area, _, _ in results]), curves


def _mean(values: Floats | Sequence[float]) -> float:
    return float(np.mean(values)) if np.size(values) else 0.0
