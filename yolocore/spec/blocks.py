"""What each block of the word table would hold and compute, worked out without building it.

Every function mirrors one block of the model: it notes the state-dict entries in order, counts operations and
activation elements, and returns the shape that comes out. Must not know rows or routing (`plan` does), and
must agree with the model package key by key, which the tests check.
"""

from __future__ import annotations

import math
from typing import Any

from yolocore.spec.sketch import Pair, Shape, Sketch, SketchError, conv_size


def conv(
    t: Sketch,
    key: str,
    x: Shape,
    c2: int,
    k: int | Pair = 1,
    s: int | Pair = 1,
    p: int | Pair | None = None,
    g: int = 1,
    d: int = 1,
    act: Any = True,
) -> Shape:
    """Convolution, batch norm, activation."""
    y = t.conv2d(f"{key}.conv", x, c2, k, s, p, g, d)
    t.batch_norm(f"{key}.bn", y)
    return y


def dw_conv(
    t: Sketch, key: str, x: Shape, c2: int, k: Any = 1, s: int = 1, d: int = 1, act: Any = True
) -> Shape:
    """Conv with as many groups as divide both widths."""
    return conv(t, key, x, c2, k, s, g=math.gcd(x.c, c2), d=d)


def conv_transpose(
    t: Sketch,
    key: str,
    x: Shape,
    c2: int,
    kernel_size: int,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
    groups: int = 1,
    bias: bool = True,
    dilation: int = 1,
) -> Shape:
    """Note a transposed convolution."""
    if x.c % groups or c2 % groups:
        raise SketchError(f"{groups} groups do not divide {x.c} input and {c2} output channels")
    if output_padding >= max(stride, dilation):
        raise SketchError(f"output padding {output_padding} must be smaller than the stride or the dilation")
    grow = dilation * (kernel_size - 1) + output_padding + 1 - 2 * padding
    h, w = (x.h - 1) * stride + grow, (x.w - 1) * stride + grow
    if h < 1 or w < 1:
        raise SketchError(f"a map of {x.h} x {x.w} is too small for padding {padding}")
    t.parameter(f"{key}.weight", x.c, c2 // groups, kernel_size, kernel_size)
    if bias:
        t.parameter(f"{key}.bias", c2)
    t.operations += 2 * c2 * h * w * (x.c // groups) * kernel_size**2
    t.elements += c2 * h * w
    return Shape(c2, h, w)


def dw_conv_transpose(
    t: Sketch, key: str, x: Shape, c2: int, k: int = 1, s: int = 1, p1: int = 0, p2: int = 0
) -> Shape:
    """Transposed convolution with as many groups as divide both widths."""
    return conv_transpose(t, key, x, c2, k, s, p1, p2, math.gcd(x.c, c2))


def bottleneck(
    t: Sketch, key: str, x: Shape, c2: int, shortcut: bool = True, g: int = 1, e: float = 0.5
) -> Shape:
    """Two convolutions, the second of kernel 3."""
    h = hidden(c2, e)
    return conv(t, f"{key}.cv2", conv(t, f"{key}.cv1", x, h), c2, 3, g=g)


def hidden(c2: int, e: float) -> int:
    """Return the hidden width."""
    h = int(c2 * e)
    if h < 1:
        raise SketchError(f"width {c2} times {e:g} leaves no channel")
    return h


def bottleneck_csp(
    t: Sketch, key: str, x: Shape, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5
) -> Shape:
    """Cross-stage partial bottleneck of the early releases."""
    h = hidden(c2, e)
    y = conv(t, f"{key}.cv1", x, h)
    t.conv2d(f"{key}.cv2", x, h)
    t.conv2d(f"{key}.cv3", y, h)
    out = conv(t, f"{key}.cv4", y._replace(c=2 * h), c2)
    t.batch_norm(f"{key}.bn", y._replace(c=2 * h))
    for i in range(n):
        bottleneck(t, f"{key}.m.{i}", y, h, shortcut, g, 1.0)
    return out


def _c3_frame(t: Sketch, key: str, x: Shape, c2: int, e: float) -> tuple[Shape, Shape]:
    """Note the three convolutions of a C3; returns (input of its middle, output)."""
    h = hidden(c2, e)
    y = conv(t, f"{key}.cv1", x, h)
    conv(t, f"{key}.cv2", x, h)
    return y, conv(t, f"{key}.cv3", y._replace(c=2 * h), c2)


def c3(
    t: Sketch, key: str, x: Shape, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5
) -> Shape:
    """Three convolutions around n bottlenecks."""
    y, out = _c3_frame(t, key, x, c2, e)
    for i in range(n):
        bottleneck(t, f"{key}.m.{i}", y, y.c, shortcut, g, 1.0)
    return out


def c3x(
    t: Sketch, key: str, x: Shape, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5
) -> Shape:
    """C3 with cross convolutions."""
    y, out = _c3_frame(t, key, x, c2, e)
    for i in range(n):
        cross_conv(t, f"{key}.m.{i}", y, y.c, 3, 1, g, 1.0, shortcut)
    return out


def c3tr(
    t: Sketch, key: str, x: Shape, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5
) -> Shape:
    """C3 with a transformer of four heads."""
    y, out = _c3_frame(t, key, x, c2, e)
    transformer_block(t, f"{key}.m", y, y.c, 4, n)
    return out


def c3spp(
    t: Sketch,
    key: str,
    x: Shape,
    c2: int,
    k: tuple[int, ...] = (5, 9, 13),
    n: int = 1,
    shortcut: bool = True,
    g: int = 1,
    e: float = 0.5,
) -> Shape:
    """C3 with spatial pyramid pooling."""
    y, out = _c3_frame(t, key, x, c2, e)
    spp(t, f"{key}.m", y, y.c, k)
    return out


def c3ghost(
    t: Sketch, key: str, x: Shape, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5
) -> Shape:
    """C3 with ghost bottlenecks."""
    y, out = _c3_frame(t, key, x, c2, e)
    for i in range(n):
        ghost_bottleneck(t, f"{key}.m.{i}", y, y.c)
    return out


def cross_conv(
    t: Sketch,
    key: str,
    x: Shape,
    c2: int,
    k: int = 3,
    s: int = 1,
    g: int = 1,
    e: float = 1.0,
    shortcut: bool = False,
) -> Shape:
    """A horizontal, then a vertical convolution."""
    y = conv(t, f"{key}.cv1", x, hidden(c2, e), (1, k), (1, s))
    out = conv(t, f"{key}.cv2", y, c2, (k, 1), (s, 1), g=g)
    if shortcut and x.c == c2 and out != x:
        raise SketchError(f"the shortcut adds a map of {x.h} x {x.w} to one of {out.h} x {out.w}")
    return out


def spp(t: Sketch, key: str, x: Shape, c2: int, k: tuple[int, ...] = (5, 9, 13)) -> Shape:
    """Spatial pyramid pooling."""
    y = conv(t, f"{key}.cv1", x, hidden(x.c, 0.5))
    t.pools(y, len(k), joined=1)
    return conv(t, f"{key}.cv2", y._replace(c=y.c * (len(k) + 1)), c2)


def sppf(t: Sketch, key: str, x: Shape, c2: int, k: int = 5) -> Shape:
    """Spatial pyramid pooling by one pool three times."""
    y = conv(t, f"{key}.cv1", x, hidden(x.c, 0.5))
    t.pools(y, 3, joined=3)  # two pools keep their inputs besides the joined map
    return conv(t, f"{key}.cv2", y._replace(c=y.c * 4), c2)


def focus(
    t: Sketch,
    key: str,
    x: Shape,
    c2: int,
    k: Any = 1,
    s: int = 1,
    p: int | Pair | None = None,
    g: int = 1,
    act: Any = True,
) -> Shape:
    """Every second pixel into channels, then Conv."""
    if x.h % 2 or x.w % 2:
        raise SketchError(f"halving needs even sides, found {x.h} x {x.w}")
    return conv(t, f"{key}.conv", Shape(4 * x.c, x.h // 2, x.w // 2), c2, k, s, p, g)


def ghost_conv(
    t: Sketch, key: str, x: Shape, c2: int, k: Any = 1, s: int = 1, g: int = 1, act: Any = True
) -> Shape:
    """Half the channels from Conv, half from a cheap one of these."""
    if c2 % 2:
        raise SketchError(f"a ghost convolution needs an even width, found {c2}")
    y = conv(t, f"{key}.cv1", x, c2 // 2, k, s, g=g)
    conv(t, f"{key}.cv2", y, y.c, 5, g=y.c)
    return y._replace(c=c2)


def ghost_bottleneck(t: Sketch, key: str, x: Shape, c2: int, k: int = 3, s: int = 1) -> Shape:
    """Two ghost convolutions with a shortcut."""
    if c2 % 4:
        raise SketchError(f"a ghost bottleneck needs a width divisible by 4, found {c2}")
    if s == 1 and x.c != c2:
        raise SketchError(f"a ghost bottleneck of stride 1 keeps its width ({x.c} in, {c2} asked)")
    y = ghost_conv(t, f"{key}.conv.0", x, c2 // 2)
    if s == 2:
        y = dw_conv(t, f"{key}.conv.1", y, y.c, k, s)
    out = ghost_conv(t, f"{key}.conv.2", y, c2)
    if s == 2:
        side = conv(t, f"{key}.shortcut.1", _shortcut_head(t, key, x, k, s), c2)
        if side != out:
            raise SketchError(f"kernel {k} changes the size of the map")
    return out


def _shortcut_head(t: Sketch, key: str, x: Shape, k: int, s: int) -> Shape:
    return dw_conv(t, f"{key}.shortcut.0", x, x.c, k, s)


def contract(t: Sketch, key: str, x: Shape, gain: int = 2) -> Shape:
    """Rows and columns into channels."""
    if x.h % gain or x.w % gain:
        raise SketchError(f"{x.h} x {x.w} cannot be divided by {gain}")
    return Shape(x.c * gain**2, x.h // gain, x.w // gain)


def expand(t: Sketch, key: str, x: Shape, gain: int = 2) -> Shape:
    """Channels into rows and columns."""
    if x.c % gain**2:
        raise SketchError(f"{x.c} channels cannot be divided by {gain**2}")
    return Shape(x.c // gain**2, x.h * gain, x.w * gain)


def mix_channels(c1: int, c2: int, kernels: tuple[int, ...], equal_ch: bool) -> list[int]:
    """Return how many output channels each kernel of a MixConv2d gets.

    Equal: positions linspace(0, n - 1e-6, c2), floored and counted. Otherwise the counts give every kernel as
    many weights and sum up to c2 (least squares, rounded).
    """
    n = len(kernels)
    if equal_ch:
        step = (n - 1e-6) / (c2 - 1) if c2 > 1 else 0.0
        places = [int(i * step) for i in range(c2)]
        return [places.count(i) for i in range(n)]
    # Here, because numpy is a tenth of an API process's memory and hardly any file needs this.
    import numpy as np

    a = np.eye(n + 1, n, k=-1)
    a -= np.roll(a, 1, axis=1)
    a *= np.array(kernels) ** 2
    a[0] = 1
    counts = np.linalg.lstsq(a, np.array([c2] + [0] * n), rcond=None)[0].round()
    return [int(count) for count in counts]


def mix_conv(
    t: Sketch, key: str, x: Shape, c2: int, k: tuple[int, ...] = (1, 3), s: int = 1, equal_ch: bool = True
) -> Shape:
    """Several kernel sizes side by side."""
    counts = mix_channels(x.c, c2, k, equal_ch)
    if min(counts) < 1 or sum(counts) != c2:
        raise SketchError(f"{c2} channels cannot be shared by {len(k)} kernels")
    y = x
    for i, (count, size) in enumerate(zip(counts, k, strict=True)):
        y = t.conv2d(f"{key}.m.{i}", x, count, size, s, size // 2, math.gcd(x.c, count))
    y = y._replace(c=c2)
    t.batch_norm(f"{key}.bn", y)
    return y


def transformer_block(t: Sketch, key: str, x: Shape, c2: int, num_heads: int, num_layers: int) -> Shape:
    """Self-attention over the cells of a map."""
    if c2 % num_heads:
        raise SketchError(f"{num_heads} attention heads do not divide {c2} channels")
    if x.c != c2:
        x = conv(t, f"{key}.conv", x, c2)
    tokens = x.h * x.w
    t.linear(f"{key}.linear", tokens, c2, c2, bias=True)
    for i in range(num_layers):
        layer = f"{key}.tr.{i}"
        for name in ("q", "k", "v"):
            t.linear(f"{layer}.{name}", tokens, c2, c2)
        t.parameter(f"{layer}.ma.in_proj_weight", 3 * c2, c2)
        t.parameter(f"{layer}.ma.in_proj_bias", 3 * c2)
        softmax = num_heads * tokens * (3 * tokens - 1)
        t.operations += 2 * (tokens * 3 * c2 * c2 + 2 * tokens**2 * c2 + softmax)
        t.elements += 3 * tokens * c2 + 2 * num_heads * tokens**2
        t.linear(f"{layer}.ma.out_proj", tokens, c2, c2, bias=True)
        t.linear(f"{layer}.fc1", tokens, c2, c2)
        t.linear(f"{layer}.fc2", tokens, c2, c2)
    return x._replace(c=c2)


def proto(t: Sketch, key: str, x: Shape, c_: int = 256, c2: int = 32) -> Shape:
    """Mask prototypes at twice the size."""
    y = conv(t, f"{key}.cv1", x, c_, 3)
    y = conv(t, f"{key}.cv2", y._replace(h=2 * y.h, w=2 * y.w), c_, 3)
    return conv(t, f"{key}.cv3", y, c2)


def upsample(
    t: Sketch, key: str, x: Shape, size: None = None, scale_factor: int = 2, mode: str = "nearest"
) -> Shape:
    """Enlarge by a whole factor."""
    y = Shape(x.c, x.h * scale_factor, x.w * scale_factor)
    t.elements += math.prod(y)
    return y


def max_pool(
    t: Sketch, key: str, x: Shape, kernel_size: int, stride: int | None = None, padding: int = 0
) -> Shape:
    """Maximum over windows."""
    if padding > kernel_size // 2:
        raise SketchError(f"padding {padding} is more than half the kernel {kernel_size}")
    h, w = (conv_size(size, kernel_size, stride or kernel_size, padding) for size in (x.h, x.w))
    return t.pools(Shape(x.c, h, w))


def zero_pad(t: Sketch, key: str, x: Shape, padding: tuple[int, int, int, int]) -> Shape:
    """Rows and columns of zeros at the edges (left, right, top, bottom)."""
    left, right, top, bottom = padding
    return Shape(x.c, x.h + top + bottom, x.w + left + right)


def norm(t: Sketch, key: str, x: Shape, num_features: None = None) -> Shape:
    """A bare batch norm."""
    t.batch_norm(key, x)
    return x


def identity(t: Sketch, key: str, x: Shape) -> Shape:
    """Nothing."""
    return x


BLOCKS: dict[str, Any] = {
    "Conv": conv,
    "DWConv": dw_conv,
    "DWConvTranspose2d": dw_conv_transpose,
    "Bottleneck": bottleneck,
    "BottleneckCSP": bottleneck_csp,
    "C3": c3,
    "C3x": c3x,
    "C3TR": c3tr,
    "C3SPP": c3spp,
    "C3Ghost": c3ghost,
    "CrossConv": cross_conv,
    "SPP": spp,
    "SPPF": sppf,
    "Focus": focus,
    "GhostConv": ghost_conv,
    "GhostBottleneck": ghost_bottleneck,
    "MixConv2d": mix_conv,
    "nn.ConvTranspose2d": conv_transpose,
    "Contract": contract,
    "Expand": expand,
    "TransformerBlock": transformer_block,
    "Proto": proto,
    "nn.Upsample": upsample,
    "nn.MaxPool2d": max_pool,
    "nn.ZeroPad2d": zero_pad,
    "nn.BatchNorm2d": norm,
    "nn.Identity": identity,
}
