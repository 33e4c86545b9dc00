"""Matching against a slow restatement, and a confusion matrix counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from yolocore.eval.matching import (
    IOU_THRESHOLDS,
    ConfusionMatrix,
    best_labels,
    first_hits,
    match_detections,
    pairwise_iou,
)
from yolocore.ops.boxes import box_iou

Rows = NDArray[np.float32]


def random_rows(seed: int, num_labels: int = 12, num_detections: int = 40) -> tuple[Rows, Rows]:
    rng = np.random.default_rng(seed)
    low = rng.random((num_labels, 2)) * 100
    boxes = np.concatenate((low, low + 15 + rng.random((num_labels, 2)) * 30), 1)
    labels = np.concatenate((rng.integers(0, 2, (num_labels, 1)), boxes), 1).astype(np.float32)
    of = rng.integers(0, num_labels, num_detections)
    found = boxes[of] + rng.normal(0, 3, (num_detections, 4))
    score = np.sort(rng.random((num_detections, 1)), 0)[::-1]
    cls = rng.integers(0, 2, (num_detections, 1))
    return np.concatenate((found, score, cls), 1).astype(np.float32), labels


def test_overlaps_are_those_of_the_tensors_bit_for_bit() -> None:
    rng = np.random.default_rng(3)
    for num_detections in (0, 1, 7, 100):
        detections = rng.uniform(0, 90, (num_detections, 6)).astype(np.float32)  # some of negative sides
        labels = rng.uniform(0, 90, (5, 5)).astype(np.float32)
        tensors = torch.from_numpy(labels[:, 1:].copy()), torch.from_numpy(detections[:, :4].copy())
        np.testing.assert_array_equal(pairwise_iou(detections, labels), box_iou(*tensors).numpy())


def slowly(detections: Rows, labels: Rows) -> NDArray[np.bool_]:
    iou = pairwise_iou(detections, labels)
    correct = np.zeros((len(detections), len(IOU_THRESHOLDS)), np.bool_)
    for column, threshold in enumerate(IOU_THRESHOLDS):
        taken: set[int] = set()
        for row in range(len(detections)):
            same = [label for label in range(len(labels)) if labels[label, 0] == detections[row, 5]]
            best = max(same, key=lambda label: iou[label, row], default=None)
            if best is not None and iou[best, row] >= threshold and best not in taken:
                taken.add(best)
                correct[row, column] = True
    return correct


@pytest.mark.parametrize("seed", range(6))
def test_same_as_one_detection_at_a_time(seed: int) -> None:
    detections, labels = random_rows(seed)
    np.testing.assert_array_equal(match_detections(detections, labels), slowly(detections, labels))


def test_many_pictures_in_one_pass_equal_each_on_its_own() -> None:
    pictures = [random_rows(seed, 3 + seed, 5 * seed) for seed in range(6)]
    label_parts, iou_parts, seen = [], [], 0
    for detections, labels in pictures:
        label, iou = best_labels(detections, labels)
        label_parts.append(np.where(label < 0, label, label + seen))
        iou_parts.append(iou)
        seen += len(labels)
    together = first_hits(np.concatenate(label_parts), np.concatenate(iou_parts))
    alone = np.concatenate([match_detections(*picture) for picture in pictures])
    np.testing.assert_array_equal(together, alone)


def test_the_first_detection_counts_though_a_later_one_fits_better() -> None:
    labels = np.array([[0, 0, 0, 10, 10]], np.float32)
    detections = np.array([[0, 0, 10, 8, 0.9, 0], [0, 0, 10, 10, 0.8, 0]], np.float32)
    correct = match_detections(detections, labels)
    assert correct[:, 0].tolist() == [True, False]
    assert correct[:, -1].tolist() == [False, True]


def test_without_labels_or_detections() -> None:
    detections, labels = random_rows(0)
    assert not match_detections(detections, labels[:0]).any()
    assert match_detections(detections[:0], labels).shape == (0, 10)


def box(x: float, cls: float, score: float) -> list[float]:
    return [x, 0, x + 10, 10, score, cls]


def label(x: float, cls: float) -> list[float]:
    return [cls, x, 0, x + 10, 10]


def array(rows: list[list[float]], columns: int) -> NDArray[Any]:
    return np.array(rows, np.float32).reshape(-1, columns)


def test_confusion_counted_by_hand_keeps_every_false_positive() -> None:
    """Four pictures: one ordinary, one without a match, one without labels, one without detections."""
    matrix = ConfusionMatrix(2)
    ordinary = [box(0, 0, 0.9), box(100, 1, 0.8), box(200, 0, 0.7), box(1, 0, 0.6), box(300, 1, 0.2)]
    matrix.add(array(ordinary, 6), array([label(0, 0), label(100, 0), label(400, 1)], 5))
    matrix.add(array([box(0, 1, 0.9)], 6), array([label(500, 1)], 5))
    matrix.add(array([box(0, 0, 0.9), box(50, 1, 0.3)], 6), array([], 5))
    matrix.add(None, array([label(0, 1)], 5))
    expected = [
        [1, 0, 3],  # (0, 0) found; false: at 200, the second one on the first label, and one without labels
        [1, 0, 2],  # class 0 taken for 1; false: no match in picture two, no labels in picture three
        [0, 3, 0],  # labels of class 1 never found
    ]
    assert matrix.counts.tolist() == expected


def test_confusion_pairs_one_to_one_by_overlap() -> None:
    matrix = ConfusionMatrix(2)
    found = [box(2, 0, 0.9), box(0, 1, 0.3)]
    matrix.add(array(found, 6), array([label(0, 1)], 5))
    assert matrix.counts.tolist() == [[0, 0, 1], [0, 1, 0], [0, 0, 0]]
