"""The blocks that repeat: bottlenecks, cross-stage partial blocks, ghosts, transformers.

Children carry the names under which published weights know them. Must not know rows, routing or losses.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from yolocore.model.layers import SPP, Act, Conv, CrossConv, DWConv


class Bottleneck(nn.Module):
    """Two convolutions with an optional shortcut."""

    def __init__(
        self,
        c1: int,
        c2: int,
        shortcut: bool = True,
        g: int = 1,
        e: float = 0.5,
        *,
        default: Act = nn.SiLU,
    ) -> None:
        super().__init__()
        h = int(c2 * e)
        self.cv1 = Conv(c1, h, default=default)
        self.cv2 = Conv(h, c2, 3, g=g, default=default)
        self.add = shortcut and c1 == c2

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c1, h, w) to (b, c2, h, w)."""
        out: Tensor = self.cv2(self.cv1(x))
        return x + out if self.add else out


class BottleneckCSP(nn.Module):
    """Cross-stage partial bottleneck of the early releases; its own activation is always SiLU."""

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        shortcut: bool = True,
        g: int = 1,
        e: float = 0.5,
        *,
        default: Act = nn.SiLU,
    ) -> None:
        super().__init__()
        h = int(c2 * e)
        self.cv1 = Conv(c1, h, default=default)
        self.cv2 = nn.Conv2d(c1, h, 1, bias=False)
        self.cv3 = nn.Conv2d(h, h, 1, bias=False)
        self.cv4 = Conv(2 * h, c2, default=default)
        self.bn = nn.BatchNorm2d(2 * h)
        self.act = nn.SiLU()
        self.m = nn.Sequential(*(Bottleneck(h, h, shortcut, g, 1.0, default=default) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c1, h, w) to (b, c2, h, w)."""
        deep = self.cv3(self.m(self.cv1(x)))
        out: Tensor = self.cv4(self.act(self.bn(torch.cat((deep, self.cv2(x)), 1))))
        return out


class _C3Frame(nn.Module):
    """Three convolutions around a middle part `m`, which subclasses give."""

    def __init__(self, c1: int, c2: int, h: int, default: Act) -> None:
        super().__init__()
        self.cv1 = Conv(c1, h, default=default)
        self.cv2 = Conv(c1, h, default=default)
        self.cv3 = Conv(2 * h, c2, default=default)
        self.m: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c1, h, w) to (b, c2, h, w)."""
        out: Tensor = self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))
        return out


class C3(_C3Frame):
    """Three convolutions around n bottlenecks."""

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        shortcut: bool = True,
        g: int = 1,
        e: float = 0.5,
        *,
        default: Act = nn.SiLU,
    ) -> None:
        h = int(c2 * e)
        super().__init__(c1, c2, h, default)
        self.m = nn.Sequential(*(Bottleneck(h, h, shortcut, g, 1.0, default=default) for _ in range(n)))


class C3x(_C3Frame):
    """C3 with cross convolutions."""

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        shortcut: bool = True,
        g: int = 1,
        e: float = 0.5,
        *,
        default: Act = nn.SiLU,
    ) -> None:
        h = int(c2 * e)
        super().__init__(c1, c2, h, default)
        self.m = nn.Sequential(*(CrossConv(h, h, 3, 1, g, 1.0, shortcut, default=default) for _ in range(n)))


class C3TR(_C3Frame):
    """C3 with a transformer of four heads and n layers."""

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        shortcut: bool = True,
        g: int = 1,
        e: float = 0.5,
        *,
        default: Act = nn.SiLU,
    ) -> None:
        h = int(c2 * e)
        super().__init__(c1, c2, h, default)
        self.m = TransformerBlock(h, h, 4, n, default=default)


class C3SPP(_C3Frame):
    """C3 with spatial pyramid pooling."""

    def __init__(
        self,
        c1: int,
        c2: int,
        k: tuple[int, ...] = (5, 9, 13),
        n: int = 1,
        shortcut: bool = True,
        g: int = 1,
        e: float = 0.5,
        *,
        default: Act = nn.SiLU,
    ) -> None:
        h = int(c2 * e)
        super().__init__(c1, c2, h, default)
        self.m = SPP(h, h, k, default=default)


class C3Ghost(_C3Frame):
    """C3 with ghost bottlenecks."""

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        shortcut: bool = True,
        g: int = 1,
        e: float = 0.5,
        *,
        default: Act = nn.SiLU,
    ) -> None:
        h = int(c2 * e)
        super().__init__(c1, c2, h, default)
        self.m = nn.Sequential(*(GhostBottleneck(h, h, default=default) for _ in range(n)))


class GhostConv(nn.Module):
    """Half the channels from a convolution, half from a cheap one of these (Han et al. 2020)."""

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int | tuple[int, int] = 1,
        s: int = 1,
        g: int = 1,
        act: bool | Act = True,
        *,
        default: Act = nn.SiLU,
    ) -> None:
        super().__init__()
        h = c2 // 2
        self.cv1 = Conv(c1, h, k, s, g=g, act=act, default=default)
        self.cv2 = Conv(h, h, 5, g=h, act=act, default=default)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c1, h, w) to (b, c2, h / s, w / s)."""
        x = self.cv1(x)
        return torch.cat((x, self.cv2(x)), 1)


class GhostBottleneck(nn.Module):
    """Two ghost convolutions with a shortcut (Han et al. 2020)."""

    def __init__(self, c1: int, c2: int, k: int = 3, s: int = 1, *, default: Act = nn.SiLU) -> None:
        super().__init__()
        h = c2 // 2
        self.conv = nn.Sequential(
            GhostConv(c1, h, default=default),
            DWConv(h, h, k, s, act=False) if s == 2 else nn.Identity(),
            GhostConv(h, c2, act=False),
        )
        self.shortcut = (
            nn.Sequential(DWConv(c1, c1, k, s, act=False), Conv(c1, c2, act=False))
            if s == 2
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c1, h, w) to (b, c2, h / s, w / s)."""
        out: Tensor = self.conv(x) + self.shortcut(x)
        return out


class TransformerLayer(nn.Module):
    """Self-attention (Vaswani et al. 2017) and two linear layers, each with a shortcut; no norm."""

    def __init__(self, c: int, num_heads: int) -> None:
        super().__init__()
        self.q = nn.Linear(c, c, bias=False)
        self.k = nn.Linear(c, c, bias=False)
        self.v = nn.Linear(c, c, bias=False)
        self.ma = nn.MultiheadAttention(c, num_heads)
        self.fc1 = nn.Linear(c, c, bias=False)
        self.fc2 = nn.Linear(c, c, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (n, b, c) to (n, b, c)."""
        attended, _ = self.ma(self.q(x), self.k(x), self.v(x), need_weights=False)
        x = attended + x
        out: Tensor = self.fc2(self.fc1(x)) + x
        return out


class TransformerBlock(nn.Module):
    """Self-attention over the cells of a map, positions by a linear layer."""

    def __init__(self, c1: int, c2: int, num_heads: int, num_layers: int, *, default: Act = nn.SiLU) -> None:
        super().__init__()
        self.conv = Conv(c1, c2, default=default) if c1 != c2 else None
        self.linear = nn.Linear(c2, c2)
        self.tr = nn.Sequential(*(TransformerLayer(c2, num_heads) for _ in range(num_layers)))

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c1, h, w) to (b, c2, h, w)."""
        if self.conv is not None:
            x = self.conv(x)
        b, c, h, w = x.shape
        tokens = x.flatten(2).permute(2, 0, 1)
        out: Tensor = self.tr(tokens + self.linear(tokens))
        return out.permute(1, 2, 0).reshape(b, c, h, w)
