"""A network in the form that leaves this package: pictures in, decoded boxes out, nothing that must be told.

What is traced must not depend on caches or on the mode of modules. Must not know file formats.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from yolocore.model.fuse import folded_copy
from yolocore.model.head import Detect
from yolocore.model.network import Network


class _RawHead(nn.Module):
    """A head that hands out its raw maps whatever mode an exporter puts it into."""

    def __init__(self, head: Detect) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Return the raw map of each level."""
        return self.head.raw_maps(features)


class Deployed(nn.Module):
    """Maps RGB pictures (b, 3, h, w) from 0 to 1 to decoded rows (b, n, 5 + classes), as the network does.

    The network is copied and folded. Cells are counted anew from the maps' shapes in each call, so that a
    trace of it serves other sizes as well. With `half` weights and maps are in fp16, what goes in and out
    stays in fp32.
    """

    def __init__(self, network: Network, *, half: bool = False) -> None:
        super().__init__()
        self.network = folded_copy(network).to(memory_format=torch.contiguous_format)
        head = self.network.head
        self.network.model[-1] = _RawHead(head)
        anchors_px = (head.anchors * head.strides.view(-1, 1, 1)).float()
        self.register_buffer("anchors_px", anchors_px.clone())
        self._strides = [float(stride) for stride in head.strides]
        self.half_precision = half
        if half:
            self.network.half()

    def forward(self, images: Tensor) -> Tensor:
        """Return rows: centre and size in pixels of the input, objectness, classes."""
        maps = self.network(images.half() if self.half_precision else images)
        return torch.cat([self._decode(level, raw.float()) for level, raw in enumerate(maps)], 1)

    def _decode(self, level: int, raw: Tensor) -> Tensor:
        """Return (b, anchors ny nx, outputs) of a level; the formula is the head's."""
        b, anchors, ny, nx, outputs = raw.shape
        scored = raw.sigmoid()
        y, x = torch.meshgrid(
            torch.arange(ny, device=raw.device, dtype=raw.dtype) - 0.5,
            torch.arange(nx, device=raw.device, dtype=raw.dtype) - 0.5,
            indexing="ij",
        )
        xy = (scored[..., 0:2] * 2 + torch.stack((x, y), -1)) * self._strides[level]
        sizes = self.get_buffer("anchors_px")[level].view(1, anchors, 1, 1, 2)
        wh = (scored[..., 2:4] * 2) ** 2 * sizes
        return torch.cat((xy, wh, scored[..., 4:]), -1).reshape(b, anchors * ny * nx, outputs)
