"""Box conversions go there and back, alike in numpy and torch; IoU has the properties it is used for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from yolocore.ops import boxes

SIDE = st.floats(1, 500, width=32)


@st.composite
def corner_boxes(draw: st.DrawFn) -> NDArray[np.float32]:
    rows = draw(st.lists(st.tuples(SIDE, SIDE, SIDE, SIDE), min_size=1, max_size=8))
    return np.array([(x, y, x + w, y + h) for x, y, w, h in rows], np.float32)


@given(corner_boxes())
def test_corners_to_centre_and_back(xyxy: NDArray[np.float32]) -> None:
    back = boxes.xywh_to_xyxy(boxes.xyxy_to_xywh(xyxy))
    np.testing.assert_allclose(back, xyxy, rtol=1e-5, atol=1e-3)
    same = boxes.xywh_to_xyxy(boxes.xyxy_to_xywh(torch.from_numpy(xyxy)))
    np.testing.assert_array_equal(same.numpy(), back)


@given(corner_boxes(), corner_boxes())
def test_iou_is_symmetric_bounded_and_one_on_itself(a: NDArray[np.float32], b: NDArray[np.float32]) -> None:
    ta, tb = torch.from_numpy(a), torch.from_numpy(b)
    iou = boxes.box_iou(ta, tb)
    assert torch.allclose(iou, boxes.box_iou(tb, ta).T, atol=1e-6)
    assert float(iou.min()) >= 0
    assert float(iou.max()) <= 1 + 1e-6
    np.testing.assert_allclose(torch.diagonal(boxes.box_iou(ta, ta)).numpy(), 1.0, atol=1e-5)


@given(corner_boxes())
def test_the_family_agrees_on_equal_boxes_and_orders_as_defined(a: NDArray[np.float32]) -> None:
    xywh = torch.from_numpy(boxes.xyxy_to_xywh(a)).double()
    moved = xywh + torch.tensor([5.0, -3, 2, 1])
    for kind in ("iou", "giou", "diou", "ciou"):
        np.testing.assert_allclose(boxes.paired_iou(xywh, xywh, kind=kind).numpy(), 1.0, atol=1e-6)
    plain = boxes.paired_iou(xywh, moved, kind="iou")
    for kind in ("giou", "diou", "ciou"):
        assert bool((boxes.paired_iou(xywh, moved, kind=kind) <= plain + 1e-9).all())


def test_paired_iou_is_the_diagonal_of_box_iou() -> None:
    a = torch.tensor([[10.0, 10, 8, 6], [30, 30, 10, 10]])
    b = torch.tensor([[12.0, 11, 8, 6], [80, 80, 10, 10]])
    full = torch.diagonal(boxes.box_iou(boxes.xywh_to_xyxy(a), boxes.xywh_to_xyxy(b)))
    torch.testing.assert_close(boxes.paired_iou(a, b, kind="iou"), full)


def test_each_axis_is_mapped_back_with_its_own_gain_and_clipped() -> None:
    found = np.array([[24.0, 16, 104, 66], [0, 0, 500, 500]], np.float32)
    mapped = boxes.scale_boxes_to_image(found, (60, 100), (0.5, 0.8), (24, 16))
    np.testing.assert_allclose(mapped, [[0, 0, 100, 60], [0, 0, 100, 60]])
    same = boxes.scale_boxes_to_image(torch.from_numpy(found), (60, 100), (0.5, 0.8), (24, 16))
    np.testing.assert_allclose(same.numpy(), mapped)
    assert found[1, 3] == 500


def test_box_ioa_is_relative_to_the_second_box() -> None:
    a = np.array([[0.0, 0, 10, 10]])
    b = np.array([[5.0, 5, 15, 15], [2, 2, 4, 4], [20, 20, 30, 30]])
    np.testing.assert_allclose(boxes.box_ioa(a, b), [[0.25, 1.0, 0.0]], atol=1e-6)


@pytest.mark.parametrize(
    ("after", "kept"),
    [
        ((0, 0, 10, 10), True),
        ((0, 0, 2, 50), False),  # too narrow
        ((0, 0, 3, 3), False),  # too little of it left
        ((0, 0, 900, 8), False),  # too long
    ],
)
def test_box_candidates(after: tuple[int, ...], kept: bool) -> None:
    before = np.array([[0.0, 0, 10, 10]])
    result = boxes.box_candidates(before, np.array([after], np.float64), min_area_ratio=0.1)
    assert result.tolist() == [kept]


def test_points_outside_the_picture_do_not_count() -> None:
    square = np.array([[0, 0], [10, 0], [10, 10], [0, 10]], np.float32)
    np.testing.assert_allclose(boxes.points_to_box_xyxy(square, (20, 10)), [0, 0, 10, 10])
    np.testing.assert_allclose(boxes.points_to_box_xyxy(square, (20, 9)), [0, 0, 0, 10])
    np.testing.assert_allclose(boxes.points_to_box_xyxy(square + 50, (20, 9)), [0, 0, 0, 0])
