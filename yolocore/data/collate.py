"""From single items to the batch a training step takes: stacking, numbering of targets, quads.

A batch is uint8, RGB, in channels-last memory: OpenCV's rows already are that layout, so stacking moves the
bytes once and nothing is transposed. It knows nothing of files, augmentation, models or devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
import torch

from yolocore.data.geometry import FloatArray
from yolocore.data.pixels import ImageArray

if TYPE_CHECKING:
    from yolocore.ops.assign import LevelMatches


class ImageShape(NamedTuple):
    """How an image of the batch came from its file, so that boxes can be mapped back.

    `original_hw` pixels of the file; `ratio_hw` resized over original; `pad_wh` grey pixels left and above.
    """

    original_hw: tuple[int, int]
    ratio_hw: tuple[float, float]
    pad_wh: tuple[float, float]


@dataclass(frozen=True)
class Item:
    """One loaded picture: HWC uint8 BGR (RGB where it lies in its batch already).

    `rows` (n, 5) float32 are `class x y w h`, normalised to the picture.
    """

    image: ImageArray
    rows: FloatArray
    path: str
    shape: ImageShape | None = None


@dataclass(frozen=True)
class Batch:
    """What one forward takes.

    `images` (B, 3, H, W) uint8 RGB, channels-last memory. `targets` (n, 6) float32: picture number, class,
    x, y, w, h normalised. `matches` is filled by the loader's `finish_batch`. `positions` are the places of
    the pictures in their epoch (of quads: of all that went into them). `shapes` is filled for validation
    only. `resized_hw` is the (height, width) that the pictures are resized to on the device, None if as is.
    """

    images: torch.Tensor
    targets: torch.Tensor
    paths: list[str]
    shapes: list[ImageShape] | None = None
    matches: list[LevelMatches] | None = None
    epoch: int = 0
    index: int = 0
    positions: list[int] = field(default_factory=list)
    resized_hw: tuple[int, int] | None = None

    def __len__(self) -> int:
        return int(self.images.shape[0])

    @property
    def input_hw(self) -> tuple[int, int]:
        """The (height, width) in pixels that the network is given."""
        height, width = self.resized_hw or self.images.shape[2:]
        return height, width

    def pin_memory(self) -> Batch:
        """Return the batch with its tensors in page-locked memory (for non-blocking copies to a GPU)."""
        return replace(self, images=self.images.pin_memory(), targets=self.targets.pin_memory())


def collate(
    items: Sequence[Item],
    *,
    epoch: int = 0,
    index: int = 0,
    positions: Sequence[int] = (),
    placed: ImageArray | None = None,
) -> Batch:
    """Stack pictures of equal size into a batch and number their targets.

    BGR becomes RGB on the way. Order of pictures and targets is the order of the items. With `placed`
    (B, H, W, 3) the pictures already lie in it, as RGB, and it becomes the batch's memory.
    """
    stacked = _stack(items) if placed is None else placed
    assert len(stacked) == len(items), (len(stacked), len(items))
    shapes = [item.shape for item in items if item.shape is not None]
    return Batch(
        images=torch.from_numpy(stacked).permute(0, 3, 1, 2),
        targets=torch.from_numpy(number_targets([item.rows for item in items])),
        paths=[item.path for item in items],
        shapes=shapes if len(shapes) == len(items) else None,
        epoch=epoch,
        index=index,
        positions=list(positions),
    )


def _stack(items: Sequence[Item]) -> ImageArray:
    height, width = items[0].image.shape[:2]
    stacked = np.empty((len(items), height, width, 3), dtype=np.uint8)
    for slot, item in zip(stacked, items, strict=True):
        assert item.image.shape == (height, width, 3), (item.path, item.image.shape)
        cv2.cvtColor(item.image, cv2.COLOR_BGR2RGB, dst=slot)
    return stacked


def number_targets(rows_per_image: Sequence[FloatArray]) -> FloatArray:
    """Concatenate label rows (n_i, 5) to targets (n, 6) with the picture number in column 0."""
    counts = [len(rows) for rows in rows_per_image]
    targets = np.zeros((sum(counts), 6), dtype=np.float32)
    targets[:, 0] = np.repeat(np.arange(len(counts)), counts)
    if len(targets):
        targets[:, 1:] = np.concatenate([rows.reshape(-1, 5) for rows in rows_per_image])
    return targets


def draw_quad(rng: np.random.Generator, num_quads: int) -> list[float]:
    """Draw one number in [0, 1) a quad; below one half the first picture is enlarged."""
    return [float(coin) for coin in rng.random(num_quads)]


def apply_quad(batch: Batch, coins: Sequence[float]) -> Batch:
    """Make one picture of double side out of each four of a batch.

    Either the first is enlarged twice (bilinear), or the four are joined: 0 over 1 on the left, 2 over 3 on
    the right. Incomplete fours are dropped. Paths and shapes are, as in YOLOv5, the first of the batch, as
    many as there are quads: they do not name what is in each. Comes before matching and resizing.
    """
    count = len(coins)
    images, targets = [], []
    for number, coin in enumerate(coins):
        four = batch.images[4 * number : 4 * number + 4]
        rows = [batch.targets[batch.targets[:, 0] == 4 * number + k] for k in range(4)]
        if coin < 0.5:
            doubled = torch.nn.functional.interpolate(
                four[:1].float(), scale_factor=2.0, mode="bilinear", align_corners=False
            )
            image, joined = doubled[0].to(torch.uint8), rows[0].clone()
        else:
            left, right = torch.cat([four[0], four[1]], dim=1), torch.cat([four[2], four[3]], dim=1)
            image = torch.cat([left, right], dim=2)
            corners = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
            moved = [row.clone() for row in rows]
            for row, corner in zip(moved, corners, strict=True):
                row[:, 2:4] += corner
                row[:, 2:6] *= 0.5
            joined = torch.cat(moved)
        joined[:, 0] = number
        images.append(image)
        targets.append(joined)
    return replace(
        batch,
        images=torch.stack(images).contiguous(memory_format=torch.channels_last),
        targets=torch.cat(targets),
        paths=batch.paths[:count],
        shapes=None if batch.shapes is None else batch.shapes[:count],
    )
