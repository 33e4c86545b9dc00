"""The tally of a block that is worked out without being built: entries, operations, activation elements.

Holds the primitives (convolution, batch norm, linear layer) the block functions in `blocks` are made of. Must
not know blocks, rows or routing.

Counting rules (those of the usual profiler): a convolution counts output elements x input channels per group
x kernel area, batch norm 4 per element, a linear layer in x out, a softmax over n 3n - 1; pooling, nearest
upsampling, concatenation and activations are free. Two operations for each.
"""

from __future__ import annotations

import math
from typing import NamedTuple

Pair = tuple[int, int]


class Shape(NamedTuple):
    """Channels, rows and columns of a map."""

    c: int
    h: int
    w: int


class SketchError(ValueError):
    """A block that cannot be built or fed; the message says why."""


class Sketch:
    """The tally of one row: entries [(key, shape)], operations, activation elements."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, tuple[int, ...]]] = []
        self.num_parameters = 0
        self.operations = 0
        self.elements = 0

    def parameter(self, key: str, *shape: int) -> None:
        """Note a trained tensor."""
        self.entries.append((key, shape))
        self.num_parameters += math.prod(shape)

    def buffer(self, key: str, *shape: int) -> None:
        """Note a tensor that is kept but not trained."""
        self.entries.append((key, shape))

    def conv2d(
        self,
        key: str,
        x: Shape,
        c2: int,
        k: int | Pair = 1,
        s: int | Pair = 1,
        p: int | Pair | None = None,
        g: int = 1,
        d: int = 1,
        *,
        bias: bool = False,
    ) -> Shape:
        """Note a bare convolution; returns its output."""
        kernel, step = pair(k), pair(s)
        pad = pair(p) if p is not None else (same_padding(kernel[0], d), same_padding(kernel[1], d))
        if x.c % g or c2 % g:
            raise SketchError(f"{g} groups do not divide {x.c} input and {c2} output channels")
        h = conv_size(x.h, kernel[0], step[0], pad[0], d)
        w = conv_size(x.w, kernel[1], step[1], pad[1], d)
        self.parameter(f"{key}.weight", c2, x.c // g, *kernel)
        if bias:
            self.parameter(f"{key}.bias", c2)
        self.operations += 2 * c2 * h * w * (x.c // g) * kernel[0] * kernel[1]
        self.elements += c2 * h * w
        return Shape(c2, h, w)

    def batch_norm(self, key: str, x: Shape) -> None:
        """Note a batch norm and the activation behind it."""
        for name in ("weight", "bias"):
            self.parameter(f"{key}.{name}", x.c)
        for name in ("running_mean", "running_var"):
            self.buffer(f"{key}.{name}", x.c)
        self.buffer(f"{key}.num_batches_tracked")
        self.operations += 8 * x.c * x.h * x.w
        self.elements += 2 * x.c * x.h * x.w

    def pools(self, y: Shape, times: int = 1, *, joined: int = 0) -> Shape:
        """Note the outputs of pools, where their maxima lie (8 bytes each), and maps joined with them."""
        self.elements += (3 * times + joined) * math.prod(y)
        return y

    def linear(self, key: str, tokens: int, c1: int, c2: int, *, bias: bool = False) -> None:
        """Note a linear layer over a number of tokens."""
        self.parameter(f"{key}.weight", c2, c1)
        if bias:
            self.parameter(f"{key}.bias", c2)
        self.operations += 2 * tokens * c1 * c2
        self.elements += tokens * c2


def pair(value: int | Pair) -> Pair:
    """Return (vertical, horizontal)."""
    return value if isinstance(value, tuple) else (value, value)


def same_padding(k: int, d: int = 1) -> int:
    """Return the padding that keeps the size at stride 1 for odd kernels."""
    return (d * (k - 1) + 1) // 2


def conv_size(size: int, k: int, s: int, p: int, d: int = 1) -> int:
    """Return the output length of a convolution or pooling along one axis."""
    out = (size + 2 * p - d * (k - 1) - 1) // s + 1
    if out < 1:
        raise SketchError(f"a map of {size} is too small for kernel {k}")
    return out
