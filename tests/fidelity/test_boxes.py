"""Golden box arithmetic: conversions, the IoU family with its gradient, polygons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.fidelity.harness import Case, cases
from yolocore.data import geometry
from yolocore.ops import boxes
from yolocore.spec.labels import LabelRow, parse_label_line

Array = NDArray[Any]


def ciou_gradient(case: Case) -> Array:
    predicted = torch.from_numpy(case.inputs["pair_p_xywh"]).requires_grad_()
    loss = (1 - boxes.paired_iou(predicted, torch.from_numpy(case.inputs["pair_t_xywh"]), kind="ciou")).sum()
    return torch.autograd.grad(loss, predicted)[0].numpy()


def paired(case: Case, kind: boxes.IouKind) -> Array:
    pair = (torch.from_numpy(case.inputs[f"pair_{side}_xywh"]) for side in "pt")
    return boxes.paired_iou(*pair, kind=kind).numpy()


def rows(boxes_of_rows: Array) -> Array:
    """Put a class in front of each box."""
    return np.concatenate((np.zeros_like(boxes_of_rows[:, :1]), boxes_of_rows), 1)


def outline_box(points: Array) -> Array:
    """Return the box that the label reader puts around an outline.

    The reader takes fractions of a picture, so the outline is moved and scaled into one, and its box back.
    """
    low = points.astype(np.float64).min(0)
    unit = float((points - low).max())
    numbers = " ".join(repr(float(value)) for value in ((points - low) / unit).ravel())
    row = parse_label_line(f"0 {numbers}", num_classes=1)
    assert isinstance(row, LabelRow)
    return np.array([row.x, row.y, row.w, row.h]) * unit + np.append(low, [0, 0])


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
    "xywhn2xyxy_w200_h100_padw7_padh3": lambda case: geometry.xywh_norm_to_xyxy_px(
        rows(case.inputs["xywhn"]), (200, 100), (7, 3)
    )[:, 1:],
    "xyxy2xywhn_w120_h90_clip_eps1e-3": lambda case: geometry.xyxy_px_to_xywh_norm(
        rows(case.inputs["a_xyxy"]), (90, 120), margin=1e-3
    )[:, 1:],
    "scale_boxes_384x640_to_720x1280": scaled,
    "scale_boxes_ratio_pad": lambda case: boxes.scale_boxes_to_image(
        torch.from_numpy(case.inputs["a_xyxy"]), (60, 100), (0.8, 0.8), (24, 16)
    ).numpy(),
    "segments2boxes_xywh": lambda case: np.stack([outline_box(points) for points in case.inputs["segments"]]),
    "segment2box_w80_h70": lambda case: np.stack(
        [boxes.points_to_box_xyxy(points, (70, 80)) for points in case.inputs["segments"]]
    ),
    "resample_first_n50": lambda case: geometry.resample_polygon(case.inputs["segments"][0], 50),
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
