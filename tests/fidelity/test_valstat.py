"""Golden statistics of a small validation set, judged through the collector that validation uses."""

from __future__ import annotations

import numpy as np
import pytest

from tests.fidelity.harness import Case, cases
from yolocore.eval.validate import Judge


@pytest.mark.parametrize("case", cases("valstat"), ids=str)
def test_statistics(case: Case) -> None:
    num_classes = case.meta["nc"]
    judge = Judge(num_classes, single_class=case.meta.get("single_cls", False))
    for image in range(case.meta["imgs"]):
        judge.add(case.inputs[f"dets{image}"], case.inputs[f"labels{image}"])
    metrics = judge.metrics()
    means = (metrics.precision, metrics.recall, metrics.map50, metrics.map50_95)
    expected = [case.result[name] for name in ("mp", "mr", "map50", "map")]
    np.testing.assert_allclose(means, expected, rtol=1e-6, atol=1e-6)
    answers = {
        "p": metrics.class_precision,
        "r": metrics.class_recall,
        "ap50": metrics.ap[:, 0],
        "ap": metrics.ap.mean(1),
        "maps": metrics.class_maps,
    }
    for name, answer in answers.items():
        np.testing.assert_allclose(answer, case.outputs[name], rtol=1e-6, atol=1e-6, err_msg=name)
    num_labels = np.zeros(num_classes, np.int64)
    num_labels[metrics.classes] = metrics.num_labels
    np.testing.assert_array_equal(num_labels, case.outputs["nt"])
    # The last column holds false positives; ours also counts those of pictures without any match.
    counts, golden = judge.confusion.counts, case.outputs["confusion"]
    np.testing.assert_array_equal(counts[:, :-1], golden[:, :-1])
    assert (counts[:, -1] >= golden[:, -1]).all()
