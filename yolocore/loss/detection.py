"""The detection loss: box, objectness and class terms of raw maps against matched cells.

The hot path has no boolean mask and asks the device for no value, so the host runs ahead of the GPU. It must
not know about the network, the optimizer or the loader; anchors and strides are arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from yolocore.loss.gather import OBJECTNESS, gather
from yolocore.loss.targets import BatchTargets, LevelTargets, check_maps, to_tensors
from yolocore.loss.terms import binary_cross_entropy, label_smoothing_targets
from yolocore.ops.boxes import paired_iou

__all__ = ["BatchTargets", "DetectionLoss", "Gains", "LevelTargets", "scale_gains", "to_tensors"]

_BALANCE_OF_THREE = (4.0, 1.0, 0.4)
_BALANCE = (4.0, 1.0, 0.25, 0.06, 0.02)
_AUTOBALANCE_RATE = 0.0001
_REFERENCE_STRIDE = 16


class Gains(NamedTuple):
    """Weights of the three terms in the total."""

    box: float
    obj: float
    cls: float


def scale_gains(box: float, obj: float, cls: float, num_levels: int, num_classes: int, imgsz: int) -> Gains:
    """Adapt the configured gains (given for 3 levels, 80 classes, 640 px) to a network and picture size."""
    per_level = 3 / num_levels
    return Gains(
        box=box * per_level,
        obj=obj * (imgsz / 640) ** 2 * per_level,
        cls=cls * num_classes / 80 * per_level,
    )


class DetectionLoss:
    """Loss with the gains of one run; `balance` is its only state and moves only under `autobalance`."""

    def __init__(
        self,
        *,
        num_classes: int,
        strides: Sequence[float],
        box: float,
        obj: float,
        cls: float,
        cls_pw: float = 1.0,
        obj_pw: float = 1.0,
        label_smoothing: float = 0.0,
        fl_gamma: float = 0.0,
        autobalance: bool = False,
        factor: float = 1.0,
    ) -> None:
        """Take final gains (see `scale_gains`) and the strides in pixels, in the head's order of levels.

        `factor` multiplies the total, not the items: the number of processes whose gradients are averaged,
        and 4 where four images became one. Anchors are not needed: the matched rows bring theirs with them.
        """
        self.num_classes = num_classes
        self.strides = [float(stride) for stride in strides]
        self.gains = Gains(box, obj, cls)
        self.cls_pw, self.obj_pw = cls_pw, obj_pw
        self.class_true, self.class_other = label_smoothing_targets(label_smoothing)
        self.fl_gamma = fl_gamma
        self.autobalance = autobalance
        self.factor = factor
        num_levels = len(self.strides)
        start = _BALANCE_OF_THREE if num_levels == 3 else _BALANCE[:num_levels]
        assert len(start) == num_levels, f"no balance is defined for {num_levels} levels"
        self._balance = torch.tensor(start, dtype=torch.float64)
        self._balance_on_host: list[float] | None = list(start)

    @property
    def balance(self) -> list[float]:
        """Weight of each level's objectness term; reading it waits for the device if autobalance moved it."""
        if self._balance_on_host is None:
            values: list[float] = self._balance.tolist()
            self._balance_on_host = values
        return list(self._balance_on_host)

    @balance.setter
    def balance(self, values: Sequence[float]) -> None:
        assert len(values) == len(self.strides)
        self._balance = torch.tensor(list(values), dtype=torch.float64, device=self._balance.device)
        self._balance_on_host = [float(value) for value in values]

    def __call__(self, maps: Sequence[Tensor], targets: BatchTargets) -> tuple[Tensor, Tensor]:
        """Return the total (1,) to back-propagate and the weighted items (3,) box, obj, cls, detached.

        `maps` are raw (b, anchors, rows, columns, 5 + classes) per level. The total is the items' sum times
        the batch size and the factor. Computed in float32, or float64 if the maps are; autocast does not
        reach in.
        """
        check_maps(maps, self.num_classes)
        with torch.autocast(maps[0].device.type, enabled=False):
            objectness, rows, winners = gather(maps, targets.levels)
            dtype = torch.float64 if rows.dtype == torch.float64 else torch.float32
            objectness, rows = objectness.to(dtype), rows.to(dtype)
            sizes = [raw.shape[:4].numel() for raw in maps]
            with torch.no_grad():
                truth = torch.zeros_like(objectness)
            lbox = lcls = rows.new_zeros(())
            if len(targets):
                lbox, iou = self._box_term(rows, targets)
                lcls = self._class_term(rows, targets)
                _write_objectness(truth, sizes, winners, targets, iou)
            lobj = self._objectness_term(objectness, truth, sizes)
            items = torch.stack((lbox * self.gains.box, lobj * self.gains.obj, lcls * self.gains.cls))
            total = items.sum().reshape(1) * (maps[0].shape[0] * self.factor)
        return total, items.detach()

    def _box_term(self, rows: Tensor, targets: BatchTargets) -> tuple[Tensor, Tensor]:
        """Return the mean of 1 - CIoU, summed over levels, and the CIoU (m,) itself."""
        place, size = (rows[:, :4].sigmoid() * 2).split_with_sizes([2, 2], 1)
        xy = place - 0.5
        wh = size.square() * targets.anchor_wh.to(rows.dtype)
        iou = paired_iou(torch.cat((xy, wh), 1), targets.box.to(rows.dtype), kind="ciou")
        return ((1.0 - iou) * targets.weight.to(rows.dtype)).sum(), iou.detach()

    def _class_term(self, rows: Tensor, targets: BatchTargets) -> Tensor:
        """Return the mean cross entropy over matches and classes, summed over levels; 0 for one class."""
        if self.num_classes == 1:
            return rows.new_zeros(())
        logits = rows[:, OBJECTNESS + 1 : OBJECTNESS + 1 + self.num_classes]
        truth = torch.full_like(logits, self.class_other)
        truth.scatter_(1, targets.cls[:, None], self.class_true)
        loss = binary_cross_entropy(logits, truth, pos_weight=_weight(self.cls_pw, rows), gamma=self.fl_gamma)
        return (loss.mean(1) * targets.weight.to(rows.dtype)).sum()

    def _objectness_term(self, objectness: Tensor, truth: Tensor, sizes: list[int]) -> Tensor:
        """Return the mean cross entropy over each level's cells, weighted by `balance`."""
        weight = _weight(self.obj_pw, objectness)
        loss = binary_cross_entropy(objectness, truth, pos_weight=weight, gamma=self.fl_gamma)
        by_level = torch.stack([part.mean() for part in torch.split(loss, sizes)])
        if self._balance.device != objectness.device:
            self._balance = self._balance.to(objectness.device)
        total = (by_level * self._balance.to(by_level.dtype)).sum()
        if self.autobalance and torch.is_grad_enabled():
            self._move_balance(by_level.detach())
        return total

    def _move_balance(self, by_level: Tensor) -> None:
        """Let each level's weight drift towards the inverse of its loss, with stride 16 held at 1."""
        rate = _AUTOBALANCE_RATE
        moved = self._balance * (1 - rate) + rate / by_level.to(self._balance.dtype)
        anchor_level = self.strides.index(_REFERENCE_STRIDE) if _REFERENCE_STRIDE in self.strides else 0
        self._balance = moved / moved[anchor_level]
        self._balance_on_host = None


def _write_objectness(
    truth: Tensor, sizes: list[int], winners: list[Tensor], targets: BatchTargets, iou: Tensor
) -> None:
    """Write max(CIoU, 0) at the matched cells; where rows share a cell the last one of the list stays.

    Each cell is written once, by its winner, so the outcome is the same on every device.
    """
    positive = iou.clamp(min=0)
    for part, place, level, count in zip(
        torch.split(truth, sizes), winners, targets.levels, targets.counts, strict=True
    ):
        if count:
            part.index_copy_(0, place, positive.index_select(0, level.winner_row))


def _weight(value: float, like: Tensor) -> Tensor | None:
    return None if value == 1.0 else like.new_full((1,), value)
