"""Training and validation batches the textbook way: double canvas, one warp, split channels, transposed.

Takes its draws from the caller, so that its pictures can be compared; it must not use `yolocore.data` beyond
the list of samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from yolocore.data.files import Sample

Image = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]
FILL = 114
_SCALE, _TRANSLATE, _HSV = 0.5, 0.1, (0.015, 0.7, 0.4)


class TextbookData:
    """Mosaics of `samples` as they are augmented by default, and their letterboxed squares.

    With `cached` the resized pictures stay in memory.
    """

    def __init__(self, samples: Sequence[Sample], imgsz: int, *, cached: bool) -> None:
        self.samples = samples
        self.imgsz = imgsz
        self._cache = [self._load(index) for index in range(len(samples))] if cached else None

    def _load(self, index: int) -> Image:
        image = np.asarray(cv2.imread(str(self.samples[index].path)), dtype=np.uint8)
        height, width = image.shape[:2]
        ratio = self.imgsz / max(height, width)
        if ratio == 1:
            return image
        size = min(math.ceil(width * ratio), self.imgsz), min(math.ceil(height * ratio), self.imgsz)
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), dtype=np.uint8)

    def picture(self, index: int) -> Image:
        """Return a picture whose longer side is the image size, BGR."""
        return self._load(index) if self._cache is None else self._cache[index].copy()

    def mosaic(self, indices: Sequence[int], centre_yx: tuple[int, int]) -> tuple[Image, Floats]:
        """Return the canvas of twice the size, and rows `class x1 y1 x2 y2` in its pixels."""
        side = self.imgsz
        yc, xc = centre_yx
        canvas = np.full((2 * side, 2 * side, 3), FILL, dtype=np.uint8)
        rows = []
        for number, index in enumerate(indices):
            image = self.picture(index)
            h, w = image.shape[:2]
            x, y = (xc - w if number % 2 == 0 else xc), (yc - h if number < 2 else yc)
            x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + w, 2 * side), min(y + h, 2 * side)
            canvas[y1:y2, x1:x2] = image[y1 - y : y2 - y, x1 - x : x2 - x]
            rows.append(_pixels(self.samples[index].rows, w, h, x, y))
        joined = np.concatenate(rows)
        np.clip(joined[:, 1:], 0, 2 * side, out=joined[:, 1:])
        return canvas, joined

    def train_batch(
        self, indices: Sequence[int], rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images (b, 3, s, s) uint8 RGB and targets (n, 6), one mosaic for each of the indices."""
        images, targets = [], []
        for number, index in enumerate(indices):
            image, rows = self._train_item(index, rng)
            images.append(torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)[::-1])))
            numbered = torch.zeros((len(rows), 6))
            numbered[:, 0] = number
            numbered[:, 1:] = torch.from_numpy(rows)
            targets.append(numbered)
        return torch.stack(images), torch.cat(targets)

    def _train_item(self, index: int, rng: np.random.Generator) -> tuple[Image, Floats]:
        side = self.imgsz
        y, x = (int(v) for v in rng.uniform(side / 2, 3 * side / 2, size=2))
        chosen = [index, *rng.integers(0, len(self.samples), size=3)]
        rng.shuffle(chosen)
        image, rows = self.mosaic(chosen, (y, x))
        scale = rng.uniform(1 - _SCALE, 1 + _SCALE)
        shift = rng.uniform(0.5 - _TRANSLATE, 0.5 + _TRANSLATE, size=2) * side
        image, rows = warp(image, rows, scale, (float(shift[0]), float(shift[1])), side)
        image = jitter(image, rng.uniform(-1, 1, 3) * _HSV + 1)
        rows = _normalised(rows, side, side)
        if rng.random() < 0.5:
            image = np.ascontiguousarray(np.fliplr(image))
            rows[:, 1] = 1 - rows[:, 1]
        return image, rows

    def epoch(self, batch: int, rng: np.random.Generator) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the training batches of one epoch."""
        order = rng.permutation(len(self.samples))
        for start in range(0, len(order), batch):
            yield self.train_batch([int(i) for i in order[start : start + batch]], rng)

    def val_batches(
        self, batch: int, frame_hw: tuple[int, int]
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield letterboxed pictures and targets; `frame_hw` holds every picture without enlarging it."""
        for start in range(0, len(self.samples), batch):
            images, targets = [], []
            for number, index in enumerate(range(start, min(start + batch, len(self.samples)))):
                image, rows = self._letterboxed(index, frame_hw)
                images.append(torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)[::-1])))
                numbered = torch.zeros((len(rows), 6))
                numbered[:, 0] = number
                numbered[:, 1:] = torch.from_numpy(rows)
                targets.append(numbered)
            yield torch.stack(images), torch.cat(targets)

    def _letterboxed(self, index: int, frame_hw: tuple[int, int]) -> tuple[Image, Floats]:
        image = self.picture(index)
        h, w = image.shape[:2]
        top, left = (frame_hw[0] - h) // 2, (frame_hw[1] - w) // 2
        bottom, right = frame_hw[0] - h - top, frame_hw[1] - w - left
        framed = cv2.copyMakeBorder(
            image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(FILL, FILL, FILL)
        )
        rows = _pixels(self.samples[index].rows, w, h, left, top)
        return np.asarray(framed, dtype=np.uint8), _normalised(rows, frame_hw[1], frame_hw[0])


def warp(
    canvas: Image, rows: Floats, scale: float, shift_xy: tuple[float, float], side: int
) -> tuple[Image, Floats]:
    """Warp the canvas, scaled about its centre, into `side` pixels; move, clip and filter the rows."""
    centre = np.eye(3)
    centre[:2, 2] = -canvas.shape[1] / 2, -canvas.shape[0] / 2
    scaled, moved = np.diag([scale, scale, 1.0]), np.eye(3)
    moved[:2, 2] = shift_xy
    matrix = moved @ scaled @ centre
    image = cv2.warpAffine(canvas, matrix[:2], dsize=(side, side), borderValue=(FILL, FILL, FILL))
    corners = np.ones((len(rows) * 4, 3))
    corners[:, :2] = rows[:, [1, 2, 3, 4, 1, 4, 3, 2]].reshape(-1, 2)
    corners = (corners @ matrix.T)[:, :2].reshape(-1, 8)
    xs, ys = corners[:, [0, 2, 4, 6]], corners[:, [1, 3, 5, 7]]
    boxes = np.stack((xs.min(1), ys.min(1), xs.max(1), ys.max(1)), 1).clip(0, side)
    before = (rows[:, 3:5] - rows[:, 1:3]) * scale
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    longer = np.maximum(w / (h + 1e-16), h / (w + 1e-16))
    kept = (w > 2) & (h > 2) & (w * h / (before.prod(1) + 1e-16) > 0.1) & (longer < 100)
    moved_rows = np.concatenate((rows[:, :1], boxes), 1)[kept]
    return np.asarray(image, dtype=np.uint8), moved_rows.astype(np.float32)


def jitter(image: Image, factors: Floats) -> Image:
    """Multiply hue, saturation and value through a table each, channel by channel."""
    hue, saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_BGR2HSV))
    levels = np.arange(256, dtype=np.float64)
    tables = (
        ((levels * factors[0]) % 180).astype(np.uint8),
        np.clip(levels * factors[1], 0, 255).astype(np.uint8),
        np.clip(levels * factors[2], 0, 255).astype(np.uint8),
    )
    parts = [cv2.LUT(part, table) for part, table in zip((hue, saturation, value), tables, strict=True)]
    return np.asarray(cv2.cvtColor(cv2.merge(parts), cv2.COLOR_HSV2BGR), dtype=np.uint8)


def _pixels(rows: Floats, width: int, height: int, x: int, y: int) -> Floats:
    out = rows.copy()
    out[:, 1] = width * (rows[:, 1] - rows[:, 3] / 2) + x
    out[:, 2] = height * (rows[:, 2] - rows[:, 4] / 2) + y
    out[:, 3] = width * (rows[:, 1] + rows[:, 3] / 2) + x
    out[:, 4] = height * (rows[:, 2] + rows[:, 4] / 2) + y
    return out


def _normalised(rows: Floats, width: int, height: int) -> Floats:
    out = rows.copy()
    out[:, 1] = (rows[:, 1] + rows[:, 3]) / 2 / width
    out[:, 2] = (rows[:, 2] + rows[:, 4]) / 2 / height
    out[:, 3] = (rows[:, 3] - rows[:, 1]) / width
    out[:, 4] = (rows[:, 4] - rows[:, 2]) / height
    return out
