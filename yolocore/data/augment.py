"""Colour, flips, mixup and copy-paste: each drawn from a keyed generator, then applied as a pure function.

The applied results equal YOLOv5's to the digit when fed with its drawn values. It knows nothing of files,
mosaics or the order in which a training sample is put together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from yolocore.data.geometry import FloatArray
from yolocore.data.pixels import ImageArray
from yolocore.ops.boxes import box_ioa

# Of hue, saturation and value: the first turns at 180, the others are cut at 255.
_TOPS, _TURNS, _WRAPS = np.array([359, 255, 255]), np.array([180, 256, 256]), np.array([180, 0, 0])
_LEVELS = np.arange(256)[:, None]
_FACTOR_BITS = 22  # products of bytes and factors below 2 fit an int32
MAX_OVERLAP = 0.30  # a pasted copy may cover at most this share of any box


@dataclass(frozen=True)
class AugmentConfig:
    """How strongly training pictures are changed; names and meaning are YOLOv5's hyperparameters."""

    hsv_h: float = 0.015
    hsv_s: float = 0.7
    hsv_v: float = 0.4
    degrees: float = 0.0
    translate: float = 0.1
    scale: float = 0.5
    shear: float = 0.0
    perspective: float = 0.0
    flipud: float = 0.0
    fliplr: float = 0.5
    mosaic: float = 1.0
    mixup: float = 0.0
    copy_paste: float = 0.0

    @property
    def colours(self) -> bool:
        """Whether colours are changed at all."""
        return bool(self.hsv_h or self.hsv_s or self.hsv_v)


def draw_hsv(
    rng: np.random.Generator, hue: float, saturation: float, value: float
) -> tuple[float, float, float]:
    """Draw the factors of hue, saturation and value: 1 + U(-1, 1) times the gain."""
    factors = rng.uniform(-1.0, 1.0, size=3) * (hue, saturation, value) + 1
    return (float(factors[0]), float(factors[1]), float(factors[2]))


class HsvJitter:
    """One draw of colours: hue (modulo 180), saturation and value (clipped) multiplied by factors below 2.

    Works on OpenCV's 8-bit HSV; products are those of float64, truncated.
    """

    def __init__(self, factors: tuple[float, float, float]) -> None:
        levels = np.arange(256, dtype=np.float64)
        self._table = np.empty((256, 3), dtype=np.uint8)
        self._table[:, 0] = (levels * factors[0]) % 180
        self._table[:, 1:] = np.minimum(levels[:, None] * factors[1:], 255)
        # Fractions a little above the factors: products just below a whole number alone can go wrong.
        self._fractions = (np.array(factors) * 2**_FACTOR_BITS).astype(np.int64) + 1
        made = np.minimum(_LEVELS * self._fractions >> _FACTOR_BITS, _TOPS)
        made -= (made >= _TURNS) * _WRAPS
        made[180:, 0] = self._table[180:, 0]  # there are no such hues
        self._multiplies = max(factors) < 2 and np.array_equal(made, self._table)

    def apply(self, image: ImageArray, out: ImageArray) -> None:
        """Write a BGR picture as RGB into `out`, a contiguous array, which may be the picture itself."""
        cv2.cvtColor(image, cv2.COLOR_BGR2HSV, dst=out)
        if self._multiplies:
            from yolocore.data.pixel_kernels import multiply  # loads a compiler, which others need not

            fractions = np.tile(self._fractions.astype(np.int32), out.shape[1])
            multiply(out.reshape(len(out), -1), fractions, *_limits(out.shape[1]))
        else:
            cv2.LUT(out, self._table[None], dst=out)
        cv2.cvtColor(out, cv2.COLOR_HSV2RGB, dst=out)


@cache
def _limits(width: int) -> tuple[npt.NDArray[np.int32], ...]:
    """Return what `multiply` cuts and wraps the bytes of a row of HSV pixels by."""
    return tuple(np.tile(each.astype(np.int32), width) for each in (_TOPS, _TURNS, _WRAPS))


def draw_flips(rng: np.random.Generator, up_down: float, left_right: float) -> tuple[bool, bool]:
    """Draw whether to flip up-down and left-right, given the probabilities."""
    vertical, horizontal = rng.random(2)
    return bool(vertical < up_down), bool(horizontal < left_right)


def flip_in_place(image: ImageArray, rows: FloatArray, *, up_down: bool, left_right: bool) -> FloatArray:
    """Flip a picture where it lies and return its rows `class x y w h` (normalised), flipped alike."""
    if not (up_down or left_right):
        return rows
    cv2.flip(image, _flip_code(up_down, left_right), dst=image)
    return _flip_rows(rows, up_down, left_right)


def _flip_code(up_down: bool, left_right: bool) -> int:
    return -1 if up_down and left_right else (0 if up_down else 1)


def _flip_rows(rows: FloatArray, up_down: bool, left_right: bool) -> FloatArray:
    rows = rows.copy()
    if up_down:
        rows[:, 2] = 1 - rows[:, 2]
    if left_right:
        rows[:, 1] = 1 - rows[:, 1]
    return rows


def draw_mixup(rng: np.random.Generator) -> float:
    """Draw the share of the first picture: Beta(32, 32) (mixup, Zhang et al., 2018)."""
    return float(rng.beta(32.0, 32.0))


def apply_mixup(first: ImageArray, second: ImageArray, ratio: float) -> ImageArray:
    """Blend two pictures of equal shape: first * ratio + second * (1 - ratio), truncated."""
    # One table of all pairs of bytes: exact double arithmetic without a double-sized picture.
    levels = np.arange(256, dtype=np.float64)
    table = (levels[:, None] * ratio + levels * (1 - ratio)).astype(np.uint8).ravel()
    pairs = first.astype(np.uint16)
    pairs <<= 8
    pairs |= second
    return table[pairs]


def draw_copy_paste(rng: np.random.Generator, count: int, share: float) -> list[int]:
    """Draw which of `count` polygons to copy, without repetition; the order matters."""
    return [int(i) for i in rng.choice(count, size=round(share * count), replace=False)] if count else []


def apply_copy_paste(
    image: ImageArray, rows: FloatArray, polygons: Sequence[FloatArray | None], chosen: Sequence[int]
) -> tuple[ImageArray, FloatArray, list[FloatArray | None]]:
    """Paste left-right mirrored copies of the chosen objects where they cover little of any other.

    `rows` are `class x1 y1 x2 y2` in pixels and aligned with `polygons`; a chosen row without a polygon is
    passed over. Returns new picture, rows and polygons; the arguments stay as they are.
    """
    height, width = image.shape[:2]
    mask = np.zeros((height, width), dtype=np.uint8)
    outlines = list(polygons)
    for index in chosen:
        polygon = polygons[index]
        if polygon is None or len(polygon) == 0:
            continue
        cls, x1, y1, x2, y2 = rows[index]
        copy = np.array([[cls, width - x2, y1, width - x1, y2]], dtype=np.float32)
        if (box_ioa(copy[:, 1:], rows[:, 1:]) < MAX_OVERLAP).all():
            rows = np.concatenate([rows, copy])
            outlines.append(np.stack([width - polygon[:, 0], polygon[:, 1]], axis=1))
            cv2.drawContours(mask, [polygon.astype(np.int32)], -1, 1, cv2.FILLED)
    mirrored = cv2.flip(mask, 1).astype(bool)
    result = image.copy()
    result[mirrored] = cv2.flip(image, 1)[mirrored]
    return result, rows, outlines
