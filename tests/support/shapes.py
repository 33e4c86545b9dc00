"""A tiny dataset that can be learned in seconds, and a tiny network: coloured squares and discs on noise."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

NAMES = ("square", "disc")
TINY_MODEL = """
nc: 2
depth_multiple: 1.0
width_multiple: 1.0
anchors: [[8,8, 12,12], [18,18, 28,28]]
backbone:
  - [-1, 1, Conv, [8, 6, 2, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, C3, [16]]
  - [-1, 1, Conv, [24, 3, 2]]
  - [-1, 1, C3, [24]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, SPPF, [32, 5]]
head:
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [[-1, 4], 1, Concat, [1]]
  - [-1, 1, C3, [24, False]]
  - [[9, 6], 1, Detect, [nc, anchors]]
"""
DEEP_MODEL = """
nc: 2
depth_multiple: 1.0
width_multiple: 1.0
anchors: [[8,8, 12,12], [18,18, 28,28]]
backbone:
  - [-1, 1, Conv, [8, 6, 2, 2]]
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
head:
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [[-1, 4], 1, Concat, [1]]
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [[-1, 3], 1, Concat, [1]]
  - [[9, 7], 1, Detect, [nc, anchors]]
"""  # its deepest row has a stride of 64, its head one of 32


def write_shapes(
    folder: Path, *, num_train: int = 10, num_val: int = 4, side: int = 64, seed: int = 0
) -> Path:
    """Write a YOLO folder of square pictures; return its data.yaml."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", num_train), ("val", num_val)):
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for number in range(count):
            image, rows = draw_shapes(rng, side)
            cv2.imwrite(str(images / f"{number:03d}.png"), image)
            lines = (" ".join(f"{value:.6g}" for value in row) for row in rows)
            (labels / f"{number:03d}.txt").write_text("\n".join(lines) + "\n")
    data = folder / "data.yaml"
    data.write_text(f"train: images/train\nval: images/val\nnames: [{', '.join(NAMES)}]\n")
    return data


def draw_shapes(rng: np.random.Generator, side: int) -> tuple[np.ndarray, list[tuple[float, ...]]]:
    """Return a picture HWC BGR uint8 and its rows `class x y w h`."""
    image = rng.integers(90, 130, (side, side, 3), dtype=np.uint8)
    rows: list[tuple[float, ...]] = []
    for _ in range(int(rng.integers(1, 4))):
        kind, radius = int(rng.integers(0, 2)), int(rng.integers(side // 10, side // 5))
        x, y = (int(v) for v in rng.integers(radius, side - radius, 2))
        colour = (230, 40, 40) if kind == 0 else (40, 40, 230)
        if kind == 0:
            cv2.rectangle(image, (x - radius, y - radius), (x + radius, y + radius), colour, -1)
        else:
            cv2.circle(image, (x, y), radius, colour, -1)
        size = (2 * radius + 1) / side
        rows.append((kind, (x + 0.5) / side, (y + 0.5) / side, size, size))
    return image, rows
