"""How much coarser than the picture each row's map is, from the rows alone.

Exact fractions instead of a trial run. Must not know shapes or channels (`plan` does).
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from yolocore.spec.architecture import Architecture, Row
from yolocore.spec.words import WORDS

MAX_SIDE = 8192


def common_stride(arch: Architecture) -> int:
    """Return the picture size that every row's stride divides (1 where that would be absurdly large)."""
    strides: list[Fraction] = []
    unit = 1
    for row in arch.rows[:-1]:
        source = row.sources[0] if isinstance(row.sources, tuple) else row.sources
        source += row.index if source < 0 else 0
        stride = strides[source] if source >= 0 else Fraction(1)
        repeats = 1 if WORDS[row.word].inner else scaled_repeats(row, arch)
        stride *= stride_factor(row.word, row.args) ** repeats
        if stride > MAX_SIDE:
            return 1
        strides.append(stride)
        unit = math.lcm(unit, stride.numerator)
    return unit if unit <= MAX_SIDE else 1


def scaled_repeats(row: Row, arch: Architecture) -> int:
    """Return how often a row's block stands in sequence after the depth multiple."""
    return max(round(row.number * arch.depth_multiple), 1) if row.number > 1 else row.number


def stride_factor(word: str, args: dict[str, Any]) -> Fraction:
    """Return how many times coarser a block's output is than its input."""
    if word in ("DWConvTranspose2d", "nn.ConvTranspose2d"):
        return Fraction(1, args.get("s") or args["stride"])
    if word == "nn.Upsample":
        return Fraction(1, args["scale_factor"])
    if word == "Expand":
        return Fraction(1, args["gain"])
    if word == "Contract":
        return Fraction(args["gain"])
    if word == "nn.MaxPool2d":
        return Fraction(args["stride"] or args["kernel_size"])
    if word == "Proto":
        return Fraction(1, 2)
    return Fraction(args.get("s", 1)) * (2 if word == "Focus" else 1)
