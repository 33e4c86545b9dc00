"""Golden average precision, working point and fitness."""

from __future__ import annotations

import numpy as np
import pytest

from tests.fidelity.harness import Case, cases
from yolocore.eval.metrics import DetectionMetrics, Judged, average_precision, smooth, summarize


def metrics_of(case: Case) -> DetectionMetrics:
    given = case.inputs
    judged = Judged(
        given["tp"], given["conf"], given["pred_cls"].astype(np.int64), given["target_cls"].astype(np.int64)
    )
    return summarize(judged, case.meta["nc"])


@pytest.mark.parametrize("case", cases("ap"), ids=str)
def test_per_class_figures(case: Case) -> None:
    metrics = metrics_of(case)
    answers = {
        "tp": metrics.true_positives,
        "fp": metrics.false_positives,
        "p": metrics.class_precision,
        "r": metrics.class_recall,
        "f1": metrics.class_f1,
        "ap": metrics.ap,
    }
    np.testing.assert_array_equal(metrics.classes, case.outputs["unique_classes"])
    for name, answer in answers.items():
        np.testing.assert_allclose(answer, case.outputs[name], rtol=1e-6, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("case", cases("ap"), ids=str)
def test_means_and_fitness(case: Case) -> None:
    metrics = metrics_of(case)
    means = (metrics.precision, metrics.recall, metrics.map50, metrics.map50_95)
    np.testing.assert_allclose(means, case.result["mp_mr_map50_map"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(metrics.fitness, case.result["fitness"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", cases("ap"), ids=str)
def test_envelope_of_one_class(case: Case) -> None:
    given = case.inputs
    cls = given["target_cls"].min()
    mine = given["pred_cls"] == cls
    order = np.argsort(-given["conf"][mine], kind="stable")
    hits = given["tp"][mine][order][:, 0].cumsum()
    num_labels = (given["target_cls"] == cls).sum()
    area, envelope, recall = average_precision(
        hits / (num_labels + 1e-16), hits / np.arange(1, len(hits) + 1)
    )
    np.testing.assert_allclose(area, case.outputs["first_class_ap50"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(envelope, case.outputs["first_class_mpre"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(recall, case.outputs["first_class_mrec"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", cases("ap"), ids=str)
def test_box_filter(case: Case) -> None:
    smoothed = smooth(case.outputs["smooth_in"], 0.1)
    np.testing.assert_allclose(smoothed, case.outputs["smooth_out_0.1"], rtol=1e-6, atol=1e-6)
