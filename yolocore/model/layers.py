"""The simple blocks of the word table: convolutions, pooling, rearrangement.

Children carry the names under which published weights know them. Must not know rows, routing or losses.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from yolocore.ops.norm_silu import can_norm_silu, norm_silu
from yolocore.spec.blocks import mix_channels
from yolocore.spec.sketch import Pair, pair, same_padding

Act = Callable[[], nn.Module]
BN_EPS = 1e-3
BN_MOMENTUM = 0.03


class Conv(nn.Module):
    """Convolution, batch norm, activation; `act` = on, off, or an activation of its own.

    With `in_one` the last two are one operation in training, where it can be done; see `join_norms`.
    """

    bn: nn.BatchNorm2d | None
    in_one = False

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int | Pair = 1,
        s: int | Pair = 1,
        p: int | Pair | None = None,
        g: int = 1,
        d: int = 1,
        act: bool | Act = True,
        *,
        default: Act = nn.SiLU,
    ) -> None:
        super().__init__()
        kernel = pair(k)
        padding = pair(p) if p is not None else (same_padding(kernel[0], d), same_padding(kernel[1], d))
        self.conv = nn.Conv2d(c1, c2, kernel, pair(s), padding, groups=g, dilation=d, bias=False)
        self.bn = nn.BatchNorm2d(c2)
        if act is True:
            self.act = default()
        else:
            self.act = act() if callable(act) else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c1, h, w) to (b, c2, h', w')."""
        x = self.conv(x)
        if self.bn is not None:
            if self.in_one and self.bn.training and can_norm_silu(x):
                return _norm_silu(self.bn, x)
            x = self.bn(x)
        out: Tensor = self.act(x)
        return out

    @torch.no_grad()
    def fold(self) -> None:
        """Fold the batch norm into the convolution, in place and without gradients.

        W' = diag(g / sqrt(var + eps)) W and b' = beta - g mean / sqrt(var + eps); worked out in float64.
        """
        bn = self.bn
        if bn is None:
            return
        assert bn.running_mean is not None and bn.running_var is not None
        weight = self.conv.weight
        scale = bn.weight.double() / (bn.running_var.double() + bn.eps).sqrt()
        bias = bn.bias.double() - bn.running_mean.double() * scale
        folded = (weight.double() * scale.view(-1, 1, 1, 1)).to(weight.dtype)
        layout = torch.channels_last if weight.is_contiguous(memory_format=torch.channels_last) else None
        if layout is not None:
            folded = folded.contiguous(memory_format=layout)
        self.conv.weight = nn.Parameter(folded, requires_grad=False)
        self.conv.bias = nn.Parameter(bias.to(weight.dtype), requires_grad=False)
        self.bn = None


def _norm_silu(bn: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Return silu(bn(x)) in training mode, and move the running statistics as `bn` does."""
    assert bn.running_mean is not None and bn.running_var is not None and bn.momentum is not None
    if bn.num_batches_tracked is not None:
        bn.num_batches_tracked.add_(1)
    return norm_silu(x, bn.weight, bn.bias, bn.running_mean, bn.running_var, bn.momentum, bn.eps)


def join_norms(network: nn.Module, *, joined: bool = True) -> int:
    """Let batch norm and SiLU of all plain convolutions be one operation in training; return how many.

    `joined=False` takes that back. It is for float32 on the CPU: what is on another device or of another
    precision takes the two modules as before. Numbers agree but for rounding, less of it; a graph cannot be
    traced through it in training.
    """
    fitting = [
        module
        for module in network.modules()
        if isinstance(module, Conv) and type(module.bn) is nn.BatchNorm2d and type(module.act) is nn.SiLU
    ]
    for module in fitting:
        module.in_one = joined
    return len(fitting)


class DWConv(Conv):
    """Conv with as many groups as divide both widths."""

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int | Pair = 1,
        s: int = 1,
        d: int = 1,
        act: bool | Act = True,
        *,
        default: Act = nn.SiLU,
    ) -> None:
        super().__init__(c1, c2, k, s, g=math.gcd(c1, c2), d=d, act=act, default=default)


class DWConvTranspose2d(nn.ConvTranspose2d):
    """Transposed convolution with as many groups as divide both widths."""

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1, p1: int = 0, p2: int = 0) -> None:
        super().__init__(c1, c2, k, s, p1, p2, groups=math.gcd(c1, c2))


class CrossConv(nn.Module):
    """A horizontal, then a vertical convolution."""

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int = 3,
        s: int = 1,
        g: int = 1,
        e: float = 1.0,
        shortcut: bool = False,
        *,
        default: Act = nn.SiLU,
    ) -> None:
        super().__init__()
        h = int(c2 * e)
        self.cv1 = Conv(c1, h, (1, k), (1, s), default=default)
        self.cv2 = Conv(h, c2, (k, 1), (s, 1), g=g, default=default)
        self.add = shortcut and c1 == c2

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c1, h, w) to (b, c2, h / s, w / s)."""
        out: Tensor = self.cv2(self.cv1(x))
        return x + out if self.add else out


class SPP(nn.Module):
    """Spatial pyramid pooling: maxima over several window sizes side by side."""

    def __init__(self, c1: int, c2: int, k: tuple[int, ...] = (5, 9, 13), *, default: Act = nn.SiLU) -> None:
        super().__init__()
        h = c1 // 2
        self.cv1 = Conv(c1, h, default=default)
        self.cv2 = Conv(h * (len(k) + 1), c2, default=default)
        self.m = nn.ModuleList(nn.MaxPool2d(size, 1, size // 2) for size in k)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c1, h, w) to (b, c2, h, w)."""
        x = self.cv1(x)
        out: Tensor = self.cv2(torch.cat([x, *(pool(x) for pool in self.m)], 1))
        return out


class SPPF(nn.Module):
    """Spatial pyramid pooling by one pool applied three times; equals SPP(5, 9, 13) for kernel 5."""

    def __init__(self, c1: int, c2: int, k: int = 5, *, default: Act = nn.SiLU) -> None:
        super().__init__()
        h = c1 // 2
        self.cv1 = Conv(c1, h, default=default)
        self.cv2 = Conv(h * 4, c2, default=default)
        self.m = nn.MaxPool2d(k, 1, k // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c1, h, w) to (b, c2, h, w)."""
        maps = [self.cv1(x)]
        for _ in range(3):
            maps.append(self.m(maps[-1]))
        out: Tensor = self.cv2(torch.cat(maps, 1))
        return out


class Focus(nn.Module):
    """Every second pixel into channels, then Conv."""

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int | Pair = 1,
        s: int = 1,
        p: int | Pair | None = None,
        g: int = 1,
        act: bool | Act = True,
        *,
        default: Act = nn.SiLU,
    ) -> None:
        super().__init__()
        self.conv = Conv(4 * c1, c2, k, s, p, g, act=act, default=default)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c1, h, w) to (b, c2, h / 2, w / 2)."""
        quarters = [x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)]
        out: Tensor = self.conv(torch.cat(quarters, 1))
        return out


class Contract(nn.Module):
    """Rows and columns into channels: (b, c, h, w) to (b, c g^2, h / g, w / g)."""

    def __init__(self, gain: int = 2) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        """New channels are ordered (row offset, column offset, channel)."""
        b, c, h, w = x.shape
        g = self.gain
        x = x.reshape(b, c, h // g, g, w // g, g).permute(0, 3, 5, 1, 2, 4)
        return x.reshape(b, c * g * g, h // g, w // g)


class Expand(nn.Module):
    """Channels into rows and columns: (b, c, h, w) to (b, c / g^2, h g, w g)."""

    def __init__(self, gain: int = 2) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        """Channels are read as (row offset, column offset, channel)."""
        b, c, h, w = x.shape
        g = self.gain
        x = x.reshape(b, g, g, c // g**2, h, w).permute(0, 3, 4, 1, 5, 2)
        return x.reshape(b, c // g**2, h * g, w * g)


class Concat(nn.Module):
    """Joins maps of one size on their channels."""

    def __init__(self, dimension: int = 1) -> None:
        super().__init__()
        self.dimension = dimension

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Map n tensors (b, c_i, h, w) to (b, sum c_i, h, w)."""
        return torch.cat(maps, self.dimension)


class MixConv2d(nn.Module):
    """Convolutions of several kernel sizes side by side, one batch norm, SiLU."""

    def __init__(
        self, c1: int, c2: int, k: tuple[int, ...] = (1, 3), s: int = 1, equal_ch: bool = True
    ) -> None:
        super().__init__()
        self.m = nn.ModuleList(
            nn.Conv2d(c1, count, size, s, size // 2, groups=math.gcd(c1, count), bias=False)
            for count, size in zip(mix_channels(c1, c2, k, equal_ch), k, strict=True)
        )
        self.bn = nn.BatchNorm2d(c2)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c1, h, w) to (b, c2, h / s, w / s)."""
        out: Tensor = self.act(self.bn(torch.cat([conv(x) for conv in self.m], 1)))
        return out


class Proto(nn.Module):
    """Mask prototypes at twice the size."""

    def __init__(self, c1: int, c2: int = 32, c_: int = 256, *, default: Act = nn.SiLU) -> None:
        super().__init__()
        self.cv1 = Conv(c1, c_, 3, default=default)
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.cv2 = Conv(c_, c_, 3, default=default)
        self.cv3 = Conv(c_, c2, default=default)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c1, h, w) to (b, c2, 2 h, 2 w)."""
        out: Tensor = self.cv3(self.cv2(self.upsample(self.cv1(x))))
        return out
