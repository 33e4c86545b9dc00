"""Golden box arithmetic: conversions, the IoU family with its gradient, polygons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.fidelity.harness import Case, cases
from yolocore.ops import boxes, polygons

Array = NDArray[Any]


def ciou_gradient(case: Case) -> Array:
    predicted = torch.from_numpy(case.inputs["pair_p_xywh"]).requires_grad_()
    loss = (1 - boxes.paired_iou(predicted, torch.from_numpy(case.inputs["pair_t_xywh"]), kind="ciou")).sum()
    return torch.autograd.grad(loss, predicted)[0].numpy()


def paired(case: Case, kind: boxes.IouKind) -> Array:
    pair = (torch.from_numpy(case.inputs[f"pair_{side}_xywh"]) for side in "pt")
    return boxes.paired_iou(*pair, kind=kind).numpy()


def scaled(case: Case) -> Array:
    gain, pad = boxes.letterbox_geometry((384, 640), (720, 1280))
    return boxes.scale_boxes_to_image(3 * case.inputs["a_xyxy"], (720, 1280), gain, pad)


def candidates(case: Case, ratio: float) -> Array:
    return boxes.box_candidates(
        case.inputs["a_xyxy"], case.inputs["box_candidates_in2"], min_area_ratio=ratio
    )


ANSWERS: dict[str, Callable[[Case], Array]] = {
    "box_iou": lambda case: boxes.box_iou(
        torch.from_numpy(case.inputs["a_xyxy"]), torch.from_numpy(case.inputs["b_xyxy"])
    ).numpy(),
    "bbox_ioa_over_b": lambda case: boxes.box_ioa(case.inputs["a_xyxy"], case.inputs["b_xyxy"]),
    "pair_iou": lambda case: paired(case, "iou"),
    "pair_giou": lambda case: paired(case, "giou"),
    "pair_diou": lambda case: paired(case, "diou"),
    "pair_ciou": lambda case: paired(case, "ciou"),
    "pair_ciou_grad_of_sum_1_minus": ciou_gradient,
    "xywh2xyxy": lambda case: boxes.xywh_to_xyxy(case.inputs["pair_p_xywh"]),
    "xyxy2xywh": lambda case: boxes.xyxy_to_xywh(case.inputs["a_xyxy"]),
    "xywhn2xyxy_w200_h100_padw7_padh3": lambda case: boxes.xywh_norm_to_xyxy_px(
        case.inputs["xywhn"], width=200, height=100, pad_w=7, pad_h=3
    ),
    "xyxy2xywhn_w120_h90_clip_eps1e-3": lambda case: boxes.xyxy_px_to_xywh_norm(
        case.inputs["a_xyxy"], width=120, height=90, clip_margin_px=1e-3
    ),
    "scale_boxes_384x640_to_720x1280": scaled,
    "scale_boxes_ratio_pad": lambda case: boxes.scale_boxes_to_image(
        torch.from_numpy(case.inputs["a_xyxy"]), (60, 100), (0.8, 0.8), (24, 16)
    ).numpy(),
    "segments2boxes_xywh": lambda case: polygons.polygons_to_boxes_xywh(list(case.inputs["segments"])),
    "segment2box_w80_h70": lambda case: np.stack(
        [polygons.polygon_to_box_xyxy(points, width=80, height=70) for points in case.inputs["segments"]]
    ),
    "resample_first_n50": lambda case: polygons.resample_polygon(case.inputs["segments"][0], 50),
    "box_candidates_0.10": lambda case: candidates(case, 0.10),
    "box_candidates_0.01": lambda case: candidates(case, 0.01),
}
GIVEN = {"box_candidates_in2"}


@pytest.mark.parametrize("case", cases("boxes"), ids=str)
def test_box_arithmetic(case: Case) -> None:
    case.inputs.update({name: case.outputs[name] for name in GIVEN})
    unknown = set(case.outputs) - GIVEN - set(ANSWERS)
    assert not unknown, f"nothing answers for {sorted(unknown)}"
    for name in sorted(set(case.outputs) - GIVEN):
        answer, expected = ANSWERS[name](case), case.outputs[name]
        assert answer.shape == expected.shape, name
        if expected.dtype == np.bool_:
            np.testing.assert_array_equal(answer, expected, name)
        else:
            np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-5, err_msg=name)
