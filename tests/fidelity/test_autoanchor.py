"""Golden fits of anchors to labels: ratios, best possible recall, matching anchors a label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.fidelity.harness import Case, assert_close, cases, deviation
from yolocore.data.files import Sample, sizes_px
from yolocore.ops.anchors import anchor_fit, side_ratios

TOLERANCE = 1e-6


@pytest.mark.parametrize("case", cases("autoanchor"), ids=str)
def test_autoanchor(case: Case) -> None:
    meta, result, labels = case.meta, case.result, case.inputs["labels_img_cls_xywhn"]
    samples = [
        Sample(Path(), "train", width, height, labels[labels[:, 0] == number, 1:], ())
        for number, (width, height) in enumerate(case.inputs["shapes_wh"].tolist())
    ]
    sizes = sizes_px(samples, meta["imgsz"])
    assert_close(sizes, case.outputs["wh_pixels"], TOLERANCE, "sizes")
    anchors = np.array(meta["anchors"], np.float32).reshape(-1, 2)
    ratios = side_ratios(sizes, anchors)
    assert_close(ratios, case.outputs["metric_all"], TOLERANCE, "ratios")
    assert_close(ratios.max(1), case.outputs["metric_best"], TOLERANCE, "best ratios")
    fit = anchor_fit(sizes, anchors, meta["thr"])
    assert_close(fit.recall, result["bpr"], TOLERANCE, "best possible recall")
    assert_close(fit.per_label, result["aat"], TOLERANCE, "matching anchors a label")
    assert fit.is_good == result["anchors_judged_good_without_random_scale"]
    assert deviation(case, "evolved"), "anchors are judged, not evolved"
