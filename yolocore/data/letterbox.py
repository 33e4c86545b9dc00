"""Fit a picture into a given shape without changing its proportions; the rest is grey.

Pure functions of array and numbers; it knows nothing of files, labels' meaning or augmentation.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2

from yolocore.data.pixels import FILL, ImageArray, as_image


class LetterboxPlan(NamedTuple):
    """Where a picture goes: its new size, the scale (w, h) and the half padding (w, h), in pixels."""

    size_wh: tuple[int, int]
    ratio_wh: tuple[float, float]
    pad_wh: tuple[float, float]


def plan_letterbox(
    hw: tuple[int, int],
    new_hw: tuple[int, int],
    *,
    auto: bool = False,
    fill: bool = False,
    upscale: bool = True,
    stride: int = 32,
) -> LetterboxPlan:
    """Compute size, ratio and padding for a picture of `hw` in a frame of `new_hw` pixels.

    `auto` pads only up to a multiple of `stride`; `fill` stretches instead of padding; without `upscale`
    small pictures keep their size. Rounding is half to even, as in YOLOv5.
    """
    height, width = hw
    ratio = min(new_hw[0] / height, new_hw[1] / width)
    if not upscale:
        ratio = min(ratio, 1.0)
    ratio_wh = (ratio, ratio)
    # A picture thinner than one pixel after scaling still has one.
    size_wh = (max(round(width * ratio), 1), max(round(height * ratio), 1))
    pad_w, pad_h = float(new_hw[1] - size_wh[0]), float(new_hw[0] - size_wh[1])
    if auto:
        pad_w, pad_h = pad_w % stride, pad_h % stride
    elif fill:
        pad_w = pad_h = 0.0
        size_wh = (new_hw[1], new_hw[0])
        ratio_wh = (new_hw[1] / width, new_hw[0] / height)
    return LetterboxPlan(size_wh, ratio_wh, (pad_w / 2, pad_h / 2))


def apply_letterbox(image: ImageArray, plan: LetterboxPlan) -> ImageArray:
    """Resize (linear) and pad a picture HWC uint8 as planned; the result never shares memory with it."""
    height, width = image.shape[:2]
    if (width, height) != plan.size_wh:
        image = as_image(cv2.resize(image, plan.size_wh, interpolation=cv2.INTER_LINEAR))
    pad_w, pad_h = plan.pad_wh
    # An odd padding puts the larger half below and to the right.
    top, bottom = round(pad_h - 0.1), round(pad_h + 0.1)
    left, right = round(pad_w - 0.1), round(pad_w + 0.1)
    padded = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(FILL,) * 3)
    return as_image(padded)
