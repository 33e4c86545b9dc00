"""The heads: raw maps to train on, decoded boxes to look at.

A head knows strides and anchors and nothing else of the network; losses and suppression live elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from yolocore.model.layers import Act, Proto

Maps = list[Tensor]
_REDUCED = (torch.float16, torch.bfloat16)


class Detect(nn.Module):
    """One 1x1 convolution per level; `anchors` are kept in grid units (pixels / stride)."""

    anchors: Tensor
    strides: Tensor

    def __init__(
        self,
        num_classes: int,
        anchors_px: Sequence[Sequence[tuple[float, float]]],
        strides: Sequence[float],
        channels: Sequence[int],
        num_masks: int = 0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_masks = num_masks
        self.num_outputs = 5 + num_classes + num_masks
        self.num_anchors = len(anchors_px[0])
        self.num_levels = len(strides)
        self.register_buffer("anchors", torch.zeros(self.num_levels, self.num_anchors, 2))
        self.register_buffer("strides", torch.tensor(strides, dtype=torch.float32), persistent=False)
        self.m = nn.ModuleList(nn.Conv2d(c, self.num_outputs * self.num_anchors, 1) for c in channels)
        self._stride_values = tuple(float(stride) for stride in strides)
        self._grids: dict[tuple[int, int, torch.dtype, torch.device], Tensor] = {}
        self.set_anchors_px(anchors_px)

    @torch.no_grad()
    def set_anchors_px(self, anchors_px: Sequence[Sequence[tuple[float, float]]]) -> None:
        """Replace the anchors by (levels, anchors, 2) widths and heights in pixels."""
        values = torch.tensor(anchors_px, dtype=torch.float64, device=self.anchors.device)
        grid = values / self.strides.to(torch.float64).view(-1, 1, 1)
        self.anchors.copy_(grid)

    @torch.no_grad()
    def init_biases(self, class_frequencies: Tensor | None = None) -> None:
        """Add the prior of an untrained detector to the biases (Lin et al. 2017, section 3.3).

        About 8 objects in a picture of 640 px, and classes as frequent as `class_frequencies` (num_classes,)
        says, equally rare without it.
        """
        end = 5 + self.num_classes
        for conv, stride in zip(self.m, self._stride_values, strict=True):
            assert isinstance(conv, nn.Conv2d) and conv.bias is not None
            bias = conv.bias.view(self.num_anchors, -1)
            bias[:, 4] += math.log(8 / (640 / stride) ** 2)
            if class_frequencies is None:
                bias[:, 5:end] += math.log(0.6 / (self.num_classes - 0.99999))
            else:
                bias[:, 5:end] += torch.log(class_frequencies / class_frequencies.sum()).to(bias)

    def raw_maps(self, features: Maps) -> Maps:
        """Map n tensors (b, c_i, ny, nx) to raw maps (b, anchors, ny, nx, outputs)."""
        maps = []
        for conv, x in zip(self.m, features, strict=True):
            y: Tensor = conv(x)
            b, _, ny, nx = y.shape
            maps.append(y.view(b, self.num_anchors, self.num_outputs, ny, nx).permute(0, 1, 3, 4, 2))
        return maps

    def decode(self, maps: Maps) -> Tensor:
        """Return (b, n, outputs): box centre and size in pixels, objectness, classes, mask coefficients.

        Rows run level by level, inside a level by anchor, row, column. x = (2 s(t) + column - 0.5) stride,
        w = (2 s(t))^2 anchor. In float32 at least, whatever the maps' precision.
        """
        return torch.cat([self._decode_level(level, raw) for level, raw in enumerate(maps)], 1)

    def _decode_level(self, level: int, raw: Tensor) -> Tensor:
        raw = raw.float() if raw.dtype in _REDUCED else raw
        b, _, ny, nx, _ = raw.shape
        stride = self._stride_values[level]
        sizes = (self.anchors[level].to(raw.dtype) * stride).view(1, self.num_anchors, 1, 1, 2)
        scored = raw[..., : 5 + self.num_classes].sigmoid()
        xy = (scored[..., 0:2] * 2 + self._grid(ny, nx, raw)) * stride
        wh = (scored[..., 2:4] * 2) ** 2 * sizes
        parts = [xy, wh, scored[..., 4:]]
        if self.num_masks:
            parts.append(raw[..., 5 + self.num_classes :])
        return torch.cat(parts, -1).reshape(b, -1, self.num_outputs)

    def _grid(self, ny: int, nx: int, like: Tensor) -> Tensor:
        """Return (ny, nx, 2): column and row of each cell minus one half; kept for the next call."""
        key = (ny, nx, like.dtype, like.device)
        if key not in self._grids:
            if len(self._grids) > 32:
                self._grids.clear()
            with torch.inference_mode(mode=False):
                rows = torch.arange(ny, device=like.device, dtype=like.dtype) - 0.5
                columns = torch.arange(nx, device=like.device, dtype=like.dtype) - 0.5
                y, x = torch.meshgrid(rows, columns, indexing="ij")
                self._grids[key] = torch.stack((x, y), -1)
        return self._grids[key]

    def forward(self, features: Maps) -> Any:
        """Return raw maps in train mode, (decoded, raw maps) otherwise."""
        maps = self.raw_maps(features)
        return maps if self.training else (self.decode(maps), maps)


class Segment(Detect):
    """Detect with mask coefficients, and prototypes from the finest level to multiply them with."""

    def __init__(
        self,
        num_classes: int,
        anchors_px: Sequence[Sequence[tuple[float, float]]],
        strides: Sequence[float],
        channels: Sequence[int],
        num_masks: int = 32,
        num_prototypes: int = 256,
        *,
        default: Act = nn.SiLU,
    ) -> None:
        super().__init__(num_classes, anchors_px, strides, channels, num_masks)
        self.proto = Proto(channels[0], num_masks, num_prototypes, default=default)

    def forward(self, features: Maps) -> Any:
        """Return (raw maps, prototypes) in train mode, (decoded, prototypes, raw maps) otherwise."""
        prototypes: Tensor = self.proto(features[0])
        maps = self.raw_maps(features)
        return (maps, prototypes) if self.training else (self.decode(maps), prototypes, maps)
