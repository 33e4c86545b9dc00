"""Matched cells on the device, packed so that a whole batch travels in two copies.

The loader matches in numpy; this is the torch side of it. It must not know about predictions or gains.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from yolocore.ops.assign import LevelMatches


@dataclass(frozen=True)
class LevelTargets:
    """Where one level's matched rows lie in its raw map, for both memory layouts of the map.

    `cell_*` (m,) flat positions of the matched rows; `winner_*` (k,) flat positions of the distinct cells,
    each with the row of the batch (over all levels) that decides its objectness in `winner_row` (k,).
    `*_nchw` counts positions as (image, anchor, row, column), `*_nhwc` as (image, row, column, anchor).
    """

    cell_nchw: Tensor
    cell_nhwc: Tensor
    winner_nchw: Tensor
    winner_nhwc: Tensor
    winner_row: Tensor


@dataclass(frozen=True)
class BatchTargets:
    """The matched rows of a batch over all levels, level after level.

    `cls` (m,) int64, `box` (m, 4) and `anchor_wh` (m, 2) in grid units, `weight` (m,) one over the number of
    rows of the row's own level. `counts` holds rows per level on the host, so nobody asks the device.
    """

    levels: tuple[LevelTargets, ...]
    counts: tuple[int, ...]
    cls: Tensor
    box: Tensor
    anchor_wh: Tensor
    weight: Tensor

    def __len__(self) -> int:
        return sum(self.counts)


def to_tensors(
    matches: Sequence[LevelMatches], device: torch.device | str = "cpu", non_blocking: bool = False
) -> BatchTargets:
    """Pack the matches of all levels and send them to the device."""
    counts = tuple(len(level) for level in matches)
    starts = np.concatenate(([0], np.cumsum(counts)))
    numbers: list[NDArray[np.int64]] = [np.concatenate([level.cls for level in matches])]
    for level, start in zip(matches, starts, strict=False):
        nchw, nhwc = _flat_cells(level)
        numbers += [nchw, nhwc, nchw[level.winner], nhwc[level.winner], level.winner + start]
    weight = np.concatenate([np.full(count, 1.0 / max(count, 1)) for count in counts])
    box = np.concatenate([level.box for level in matches])
    anchor_wh = np.concatenate([level.anchor_wh for level in matches])
    floats = np.concatenate((box.ravel(), anchor_wh.ravel(), weight), dtype=np.float64)
    if box.dtype != np.float64:
        floats = floats.astype(np.float32)

    packed = _send(np.concatenate(numbers), device, non_blocking)
    parts = iter(torch.split(packed, [len(part) for part in numbers]))
    cls = next(parts)
    levels = tuple(LevelTargets(*(next(parts) for _ in range(5))) for _ in matches)
    total = len(weight)
    sent = _send(floats, device, non_blocking)
    box_t, anchor_t, weight_t = torch.split(sent, [4 * total, 2 * total, total])
    return BatchTargets(levels, counts, cls, box_t.view(-1, 4), anchor_t.view(-1, 2), weight_t)


def _flat_cells(level: LevelMatches) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    num_anchors, ny, nx = level.map_shape
    nchw = ((level.image * num_anchors + level.anchor) * ny + level.gj) * nx + level.gi
    nhwc = ((level.image * ny + level.gj) * nx + level.gi) * num_anchors + level.anchor
    return nchw, nhwc


def _send(array: NDArray[Any], device: torch.device | str, non_blocking: bool) -> Tensor:
    tensor = torch.from_numpy(array)
    if non_blocking and torch.device(device).type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=non_blocking)


def check_maps(maps: Iterable[Tensor], num_classes: int) -> None:
    """Assert that raw maps have 5 + num_classes numbers in each row; a mistake here is the program's own."""
    for raw in maps:
        assert raw.ndim == 5 and raw.shape[-1] >= 5 + num_classes, f"raw map of shape {tuple(raw.shape)}"
