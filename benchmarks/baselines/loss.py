"""The detection loss the textbook way: targets built on the device in each step, boolean masks, indexing.

Written from the published rule; it must not use anything of `yolocore.loss` or `yolocore.ops.assign`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Level = tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor], Tensor, Tensor]
_BALANCE = (4.0, 1.0, 0.4)
_EPS = 1e-7


@dataclass(frozen=True)
class TextbookLoss:
    """Box, objectness and class terms over three levels; gains are final, `anchors_grid` (3, anchors, 2)."""

    anchors_grid: Tensor
    num_classes: int
    box: float
    obj: float
    cls: float
    anchor_t: float = 4.0

    def __call__(self, maps: Sequence[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the total (1,) and the weighted items (3,); `targets` (n, 6) normalised."""
        lbox, lobj, lcls = (torch.zeros(1) for _ in range(3))
        for raw, balance, level in zip(maps, _BALANCE, self.build_targets(maps, targets), strict=True):
            cls, (image, anchor, gj, gi), box, anchor_wh = level
            truth = torch.zeros(raw.shape[:4], dtype=raw.dtype)
            if len(image):
                matched = raw[image, anchor, gj, gi]
                xy = matched[:, 0:2].sigmoid() * 2 - 0.5
                wh = (matched[:, 2:4].sigmoid() * 2) ** 2 * anchor_wh
                iou = complete_iou(torch.cat((xy, wh), 1), box)
                lbox = lbox + (1.0 - iou).mean()
                truth[image, anchor, gj, gi] = iou.detach().clamp(0).type(truth.dtype)
                if self.num_classes > 1:
                    wanted = torch.zeros_like(matched[:, 5:])
                    wanted[range(len(cls)), cls] = 1.0
                    lcls = lcls + F.binary_cross_entropy_with_logits(matched[:, 5:], wanted)
            lobj = lobj + F.binary_cross_entropy_with_logits(raw[..., 4], truth) * balance
        items = torch.cat((lbox * self.box, lobj * self.obj, lcls * self.cls))
        return items.sum().reshape(1) * maps[0].shape[0], items.detach()

    def build_targets(self, maps: Sequence[Tensor], targets: Tensor) -> list[Level]:
        """Return class, (image, anchor, row, column), box and anchor of the matched cells of each level."""
        num_anchors = self.anchors_grid.shape[1]
        number = torch.arange(num_anchors).float().view(num_anchors, 1).repeat(1, len(targets))
        repeated = torch.cat((targets.repeat(num_anchors, 1, 1), number[..., None]), 2)
        return [
            self._level(repeated, anchors, raw) for anchors, raw in zip(self.anchors_grid, maps, strict=True)
        ]

    def _level(self, repeated: Tensor, anchors: Tensor, raw: Tensor) -> Level:
        ny, nx = raw.shape[2:4]
        gain = torch.tensor([1, 1, nx, ny, nx, ny, 1], dtype=repeated.dtype)
        scaled = repeated * gain
        ratio = scaled[..., 4:6] / anchors[:, None]
        chosen = scaled[torch.max(ratio, 1 / ratio).max(2)[0] < self.anchor_t]
        from_start, from_end = chosen[:, 2:4], gain[2:4] - chosen[:, 2:4]
        left, upper = ((from_start % 1 < 0.5) & (from_start > 1)).T
        right, lower = ((from_end % 1 < 0.5) & (from_end > 1)).T
        mask = torch.stack((torch.ones_like(left), left, upper, right, lower))
        steps = torch.tensor([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1]], dtype=repeated.dtype) * 0.5
        chosen = chosen.repeat(5, 1, 1)[mask]
        offsets = (torch.zeros_like(from_start)[None] + steps[:, None])[mask]
        cell = (chosen[:, 2:4] - offsets).long()
        gi, gj = cell[:, 0].clamp(0, nx - 1), cell[:, 1].clamp(0, ny - 1)
        box = torch.cat((chosen[:, 2:4] - torch.stack((gi, gj), 1), chosen[:, 4:6]), 1)
        anchor = chosen[:, 6].long()
        return chosen[:, 1].long(), (chosen[:, 0].long(), anchor, gj, gi), box, anchors[anchor]


def complete_iou(predicted: Tensor, true: Tensor) -> Tensor:
    """Return the CIoU (n,) of boxes (n, 4) centre and size (Zheng et al. 2020)."""
    (x1, y1, w1, h1), (x2, y2, w2, h2) = predicted.unbind(1), true.unbind(1)
    left1, right1, top1, bottom1 = x1 - w1 / 2, x1 + w1 / 2, y1 - h1 / 2, y1 + h1 / 2
    left2, right2, top2, bottom2 = x2 - w2 / 2, x2 + w2 / 2, y2 - h2 / 2, y2 + h2 / 2
    width = (right1.minimum(right2) - left1.maximum(left2)).clamp(0)
    height = (bottom1.minimum(bottom2) - top1.maximum(top2)).clamp(0)
    inter = width * height
    iou = inter / (w1 * h1 + w2 * h2 - inter + _EPS)
    hull_w = right1.maximum(right2) - left1.minimum(left2)
    hull_h = bottom1.maximum(bottom2) - top1.minimum(top2)
    apart = ((left2 + right2 - left1 - right1) ** 2 + (top2 + bottom2 - top1 - bottom1) ** 2) / 4
    v = (4 / math.pi**2) * (torch.atan(w2 / h2) - torch.atan(w1 / h1)) ** 2
    with torch.no_grad():
        alpha = v / (v - iou + (1 + _EPS))
    return iou - (apart / (hull_w**2 + hull_h**2 + _EPS) + v * alpha)
