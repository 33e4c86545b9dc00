"""Box conversions and the IoU family, so that every part of the core agrees on formats and on rounding.

Formats are in the names: `xyxy` corners, `xywh` centre and size, `px` pixels, `norm` fractions of the
picture. Conversions take a torch tensor or a numpy array and return the same; IoU is torch only. It must not
know about classes, scores, images or labels.
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Boxes = TypeVar("Boxes", NDArray[Any], Tensor)
Number = TypeVar("Number", bound=np.floating[Any])
IouKind = Literal["iou", "giou", "diou", "ciou"]
EPS = 1e-7


def _join(first: Boxes, second: Boxes) -> Boxes:
    if isinstance(first, Tensor):
        return torch.cat((first, second), -1)
    return np.concatenate((first, second), -1)


def xywh_to_xyxy(boxes_xywh: Boxes) -> Boxes:
    """Turn (..., 4) centre and size into (..., 4) corners, in the same unit."""
    centre, half = boxes_xywh[..., 0:2], boxes_xywh[..., 2:4] / 2
    return _join(centre - half, centre + half)


def xyxy_to_xywh(boxes_xyxy: Boxes) -> Boxes:
    """Turn (..., 4) corners into (..., 4) centre and size, in the same unit."""
    low, high = boxes_xyxy[..., 0:2], boxes_xyxy[..., 2:4]
    return _join((low + high) / 2, high - low)


def letterbox_geometry(
    model_hw: tuple[int, int], image_hw: tuple[int, int]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return ((gain_h, gain_w), (pad_w, pad_h)) of a picture letterboxed centrally into the model input."""
    gain = min(model_hw[0] / image_hw[0], model_hw[1] / image_hw[1])
    return (gain, gain), ((model_hw[1] - image_hw[1] * gain) / 2, (model_hw[0] - image_hw[0] * gain) / 2)


def scale_boxes_to_image(
    boxes_xyxy_px: Boxes,
    image_hw: tuple[int, int],
    gain_hw: tuple[float, float],
    pad_wh: tuple[float, float],
) -> Boxes:
    """Map (n, 4) corners from the model's input back to the original picture and clip them to it.

    Both gains are used, each on its own axis: a picture whose sides were rounded while resizing is mapped
    back without a drift along the axis that rounded the other way.
    """
    gain_h, gain_w = gain_hw
    pad = [pad_wh[0], pad_wh[1]] * 2
    gain = [gain_w, gain_h] * 2
    if isinstance(boxes_xyxy_px, Tensor):
        moved = (boxes_xyxy_px - boxes_xyxy_px.new_tensor(pad)) / boxes_xyxy_px.new_tensor(gain)
    else:
        dtype = boxes_xyxy_px.dtype
        moved = (boxes_xyxy_px - np.array(pad, dtype)) / np.array(gain, dtype)
    return clip_boxes(moved, image_hw)


def clip_boxes(boxes_xyxy_px: Boxes, image_hw: tuple[int, int]) -> Boxes:
    """Clip (n, 4) pixel corners to a picture of (rows, columns); return new boxes."""
    if isinstance(boxes_xyxy_px, Tensor):
        limit = boxes_xyxy_px.new_tensor([image_hw[1], image_hw[0]] * 2)
        return torch.minimum(boxes_xyxy_px.clamp(min=0), limit)
    highest = np.array([image_hw[1], image_hw[0]] * 2, boxes_xyxy_px.dtype)
    clipped: NDArray[Any] = np.clip(boxes_xyxy_px, 0, highest)
    return clipped


def box_iou(boxes_a_xyxy: Tensor, boxes_b_xyxy: Tensor, eps: float = EPS) -> Tensor:
    """Return the (n, m) intersection over union of every box of a with every box of b."""
    low = torch.maximum(boxes_a_xyxy[:, None, 0:2], boxes_b_xyxy[None, :, 0:2])
    high = torch.minimum(boxes_a_xyxy[:, None, 2:4], boxes_b_xyxy[None, :, 2:4])
    inter = (high - low).clamp_(min=0).prod(2)
    area_a = (boxes_a_xyxy[:, 2:4] - boxes_a_xyxy[:, 0:2]).prod(1)
    area_b = (boxes_b_xyxy[:, 2:4] - boxes_b_xyxy[:, 0:2]).prod(1)
    return inter / (area_a[:, None] + area_b[None, :] - inter + eps)


def box_ioa(
    boxes_a_xyxy: NDArray[np.floating[Any]], boxes_b_xyxy: NDArray[np.floating[Any]], eps: float = EPS
) -> NDArray[np.floating[Any]]:
    """Return the (n, m) intersection of every box of a with every box of b, over the area of the box of b."""
    low = np.maximum(boxes_a_xyxy[:, None, 0:2], boxes_b_xyxy[None, :, 0:2])
    high = np.minimum(boxes_a_xyxy[:, None, 2:4], boxes_b_xyxy[None, :, 2:4])
    inter: NDArray[np.floating[Any]] = (high - low).clip(0).prod(2)
    area_b: NDArray[np.floating[Any]] = (boxes_b_xyxy[:, 2:4] - boxes_b_xyxy[:, 0:2]).prod(1)
    return inter / (area_b[None, :] + eps)


def paired_iou(
    predicted_xywh: Tensor, true_xywh: Tensor, *, kind: IouKind = "ciou", eps: float = EPS
) -> Tensor:
    """Return (n,) IoU, GIoU, DIoU or CIoU of row i with row i of two (n, 4) centre-and-size tensors.

    GIoU: Rezatofighi et al. 2019; DIoU and CIoU: Zheng et al. 2020. The trade-off weight of CIoU's aspect
    term carries no gradient, as in the paper.
    """
    centre_p, size_p = predicted_xywh[:, 0:2], predicted_xywh[:, 2:4]
    centre_t, size_t = true_xywh[:, 0:2], true_xywh[:, 2:4]
    half_p, half_t = size_p / 2, size_t / 2
    low_p, high_p, low_t, high_t = centre_p - half_p, centre_p + half_p, centre_t - half_t, centre_t + half_t
    overlap_w, overlap_h = (
        (torch.minimum(high_p, high_t) - torch.maximum(low_p, low_t)).clamp(min=0).unbind(1)
    )
    (width_p, height_p), (width_t, height_t) = size_p.unbind(1), size_t.unbind(1)
    inter = overlap_w * overlap_h
    union = width_p * height_p + width_t * height_t - inter + eps
    iou = inter / union
    if kind == "iou":
        return iou
    enclosing = torch.maximum(high_p, high_t) - torch.minimum(low_p, low_t)
    if kind == "giou":
        area = enclosing[:, 0] * enclosing[:, 1] + eps
        return iou - (area - union) / area
    diagonal = enclosing.square().sum(1) + eps
    penalty = (centre_t - centre_p).square().sum(1) / diagonal
    if kind == "diou":
        return iou - penalty
    aspect = (torch.atan(width_t / height_t) - torch.atan(width_p / height_p)).square() * (4 / math.pi**2)
    with torch.no_grad():
        alpha = aspect / (aspect - iou + (1 + eps))
    return iou - (penalty + aspect * alpha)


def box_candidates(
    before_xyxy_px: NDArray[np.floating[Any]],
    after_xyxy_px: NDArray[np.floating[Any]],
    *,
    min_area_ratio: float | NDArray[np.floating[Any]],
    min_side_px: float = 2.0,
    max_aspect: float = 100.0,
) -> NDArray[np.bool_]:
    """Tell which of (n, 4) boxes are still worth keeping after a warp.

    A box stays if both sides exceed `min_side_px`, its area exceeds `min_area_ratio` (one for all, or (n,))
    of the area before, and its longer side is under `max_aspect` times the shorter.
    """
    eps = 1e-16
    size_before = before_xyxy_px[:, 2:4] - before_xyxy_px[:, 0:2]
    size = after_xyxy_px[:, 2:4] - after_xyxy_px[:, 0:2]
    width, height = size[:, 0], size[:, 1]
    aspect = np.maximum(width / (height + eps), height / (width + eps))
    large = (width > min_side_px) & (height > min_side_px)
    kept: NDArray[np.bool_] = (
        large & (width * height / (size_before.prod(1) + eps) > min_area_ratio) & (aspect < max_aspect)
    )
    return kept


def points_to_box_xyxy(points_px: NDArray[Number], image_hw: tuple[int, int]) -> NDArray[Number]:
    """Return the (4,) extents of those of (n, 2) points that lie in the picture; zeros if none does."""
    x, y = points_px[:, 0], points_px[:, 1]
    inside = (x >= 0) & (y >= 0) & (x <= image_hw[1]) & (y <= image_hw[0])
    if not inside.any():
        return np.zeros(4, points_px.dtype)
    kept = points_px[inside]
    return np.concatenate((kept.min(0), kept.max(0)))
