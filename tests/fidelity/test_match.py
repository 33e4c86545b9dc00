"""Golden matching of detections and labels, and the confusion matrix up to its column of false positives."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.fidelity.harness import Case, cases
from yolocore.eval.matching import ConfusionMatrix, match_detections, pairwise_iou


def assert_confusion(case: Case, part: str, counts: NDArray[np.int64]) -> None:
    """Compare all but the last column, where we also count false positives of pictures without a match."""
    expected = case.outputs[part]
    np.testing.assert_array_equal(counts[:, :-1], expected[:, :-1], part)
    assert (counts[:, -1] >= expected[:, -1]).all(), part


@pytest.mark.parametrize("case", cases("match"), ids=str)
def test_matching(case: Case) -> None:
    detections, labels = case.inputs["detections"], case.inputs["labels"]
    thresholds = np.array(case.result["iouv"], np.float32)
    np.testing.assert_array_equal(match_detections(detections, labels, thresholds), case.outputs["correct"])
    iou = pairwise_iou(detections, labels)
    np.testing.assert_allclose(iou, case.outputs["iou_label_by_det"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", cases("match"), ids=str)
def test_confusion(case: Case) -> None:
    detections, labels = case.inputs["detections"], case.inputs["labels"]
    matrix = ConfusionMatrix(case.meta["nc"])
    matrix.add(detections, labels)
    assert_confusion(case, "confusion", matrix.counts)
    matrix.add(None, labels)
    assert_confusion(case, "confusion_after_none", matrix.counts)
    strict = ConfusionMatrix(case.meta["nc"], conf_thres=0.5, iou_thres=0.6)
    strict.add(detections, labels)
    assert_confusion(case, "confusion_conf0.5_iou0.6", strict.counts)
