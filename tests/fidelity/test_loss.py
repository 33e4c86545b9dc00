"""Golden losses: target building row by row, items, total and gradients, in both memory layouts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.fidelity.harness import Case, cases
from yolocore.loss.detection import DetectionLoss, to_tensors
from yolocore.loss.terms import binary_cross_entropy, blurred_cross_entropy, quality_focal
from yolocore.ops.assign import LevelMatches, assign_targets

TOLERANCE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-6}


def raw_maps(case: Case, *, channels_last: bool) -> list[Tensor]:
    maps = [torch.from_numpy(case.inputs[f"p{level}"]) for level in range(len(case.meta["strides"]))]
    if channels_last:
        maps = [raw.permute(0, 2, 3, 1, 4).contiguous().permute(0, 3, 1, 2, 4) for raw in maps]
    return [raw.requires_grad_() for raw in maps]


def matches_of(case: Case) -> list[LevelMatches]:
    strides = np.array(case.meta["strides"], np.float32)
    anchors = np.array(case.meta["anchors"], np.float32).reshape(len(strides), -1, 2) / strides[:, None, None]
    shapes = [case.inputs[f"p{level}"].shape[2:4] for level in range(len(strides))]
    return assign_targets(case.inputs["targets"], anchors, shapes, case.result["hyp"]["anchor_t"])


def loss_of(case: Case) -> DetectionLoss:
    names = ("box", "obj", "cls", "cls_pw", "obj_pw", "label_smoothing", "fl_gamma")
    return DetectionLoss(
        num_classes=case.meta["nc"],
        strides=case.meta["strides"],
        autobalance=case.meta.get("autobalance", False),
        **{name: case.result["hyp"][name] for name in names},
    )


@pytest.mark.parametrize("case", cases("loss"), ids=str)
def test_targets_are_matched_in_the_same_order(case: Case) -> None:
    for level, rows in enumerate(matches_of(case)):
        place = np.stack((rows.image, rows.anchor, rows.gj, rows.gi), 1)
        np.testing.assert_array_equal(place.reshape(-1, 4), case.outputs[f"bt_ind{level}"].reshape(-1, 4))
        np.testing.assert_array_equal(rows.cls, case.outputs[f"bt_tcls{level}"])
        np.testing.assert_allclose(rows.box, case.outputs[f"bt_tbox{level}"].reshape(-1, 4), rtol=1e-6)
        np.testing.assert_allclose(rows.anchor_wh, case.outputs[f"bt_anch{level}"].reshape(-1, 2), rtol=1e-6)


@pytest.mark.parametrize("channels_last", [False, True], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("case", cases("loss"), ids=str)
def test_items_total_and_gradient(case: Case, channels_last: bool) -> None:
    loss, targets = loss_of(case), to_tensors(matches_of(case))
    maps = raw_maps(case, channels_last=channels_last)
    for call in range(case.meta.get("calls", 1)):
        expected = case.result[f"balance{call}"][: len(maps)]
        np.testing.assert_allclose(loss.balance, expected, rtol=1e-6)
        total, items = loss(maps, targets)
        np.testing.assert_allclose(items.numpy(), case.outputs[f"items{call}"], **TOLERANCE)
        np.testing.assert_allclose(total.detach().numpy(), case.outputs[f"total{call}"], **TOLERANCE)
        if call == 0:
            gradients = torch.autograd.grad(total.sum(), maps)
            for level, gradient in enumerate(gradients):
                np.testing.assert_allclose(gradient.numpy(), case.outputs[f"grad_p{level}"], **TOLERANCE)
    after = case.result.get(f"balance{case.meta.get('calls', 1)}")
    if after is not None:
        np.testing.assert_allclose(loss.balance, after[: len(maps)], rtol=1e-6)


@pytest.mark.parametrize("case", cases("small"), ids=str)
def test_focal_terms(case: Case) -> None:
    if "focal_pred" not in case.outputs:
        pytest.skip("this case has no focal terms")
    logits, truth = (torch.from_numpy(case.outputs[f"focal_{name}"]) for name in ("pred", "true"))
    weight = torch.tensor([1.3])
    for name, expected in case.outputs.items():
        kind, _, setting = name.partition("_")
        if kind == "focal" and setting.startswith("g"):
            terms = binary_cross_entropy(logits, truth, pos_weight=weight, gamma=float(setting[1:]))
        elif kind == "qfocal":
            terms = quality_focal(logits, truth, pos_weight=weight, gamma=float(setting[1:]))
        elif kind == "bceblur":
            terms = blurred_cross_entropy(logits, truth, alpha=float(setting.removeprefix("alpha")))
        else:
            continue
        np.testing.assert_allclose(terms.mean().numpy(), expected, err_msg=name, **TOLERANCE)
