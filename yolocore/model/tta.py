"""Test-time augmentation: one network over scaled and mirrored pictures, results brought back and joined.

Must not know suppression; the joined rows go where decoded rows go.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from yolocore.model.network import Network

VIEWS: tuple[tuple[float, bool], ...] = ((1.0, False), (0.83, True), (0.67, False))
GREY = 0.447


@torch.no_grad()
def predict_augmented(network: Network, images: Tensor) -> Tensor:
    """Return decoded rows (b, n, outputs) over all views of (b, channels, h, w) pictures in eval mode.

    The first view gives up its coarsest level and the last its finest, where objects of that size are seen
    better by the others.
    """
    unit = math.ceil(max(network.plan.strides))
    results = []
    for scale, mirrored in VIEWS:
        view = scaled(images.flip(3) if mirrored else images, scale, unit)
        results.append(_brought_back(network(view)[0], scale, mirrored, images.shape[3]))
    levels = network.head.num_levels
    total = sum(4**level for level in range(levels))
    results[0] = results[0][:, : results[0].shape[1] - results[0].shape[1] // total]
    results[-1] = results[-1][:, results[-1].shape[1] // total * 4 ** (levels - 1) :]
    return torch.cat(results, 1)


def scaled(images: Tensor, scale: float, unit: int) -> Tensor:
    """Return pictures scaled bilinearly and padded right and below with grey to a multiple of `unit`."""
    if scale == 1.0:
        return images
    h, w = images.shape[2:]
    small = F.interpolate(images, size=(int(h * scale), int(w * scale)), mode="bilinear", align_corners=False)
    bottom = math.ceil(h * scale / unit) * unit - small.shape[2]
    right = math.ceil(w * scale / unit) * unit - small.shape[3]
    return F.pad(small, (0, right, 0, bottom), value=GREY)


def _brought_back(decoded: Tensor, scale: float, mirrored: bool, width: int) -> Tensor:
    boxes = decoded[..., :4] / scale
    if mirrored:
        boxes = torch.cat((width - boxes[..., :1], boxes[..., 1:]), -1)
    return torch.cat((boxes, decoded[..., 4:]), -1)
