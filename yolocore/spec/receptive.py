"""How many pixels of the picture can change one cell of each row's map: the receptive field.

Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural Networks" (Distill, 2019): through
a layer of kernel k, stride s and dilation d,

    r = r_prev + d (k - 1) jump_prev        jump = jump_prev s

and where paths meet, the largest (their section "Arbitrary computation graphs"). Enlarging by f divides the
jump by f. A field may be larger than the picture: then every pixel counts, and some cells see padding. It
must not know shapes or widths, only the plan's rows and their arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from yolocore.spec.layers import Layer, Plan
from yolocore.spec.sketch import Pair, pair

ATTENTION = ("C3TR", "TransformerBlock")


@dataclass(frozen=True)
class Field:
    """A field of `size` pixels (rows, columns) and the pixels between two cells of the map, per axis.

    `whole` = attention: every pixel counts, whatever the size says.
    """

    size: tuple[Fraction, Fraction] = (Fraction(1), Fraction(1))
    jump: tuple[Fraction, Fraction] = (Fraction(1), Fraction(1))
    whole: bool = False

    @property
    def pixels(self) -> tuple[int, int] | None:
        """Rows and columns in whole pixels; None = the whole picture."""
        return None if self.whole else (math.ceil(self.size[0]), math.ceil(self.size[1]))

    def slide(self, k: int | Pair, s: int | Pair = 1, d: int = 1) -> Field:
        """Return the field behind a window of kernel k, stride s and dilation d."""
        size = [r + d * (n - 1) * j for r, n, j in zip(self.size, pair(k), self.jump, strict=True)]
        jump = [j * n for j, n in zip(self.jump, pair(s), strict=True)]
        return Field((size[0], size[1]), (jump[0], jump[1]), self.whole)

    def enlarge(self, factor: int, reach: int = 0) -> Field:
        """Return the field where each cell becomes factor x factor, looking `reach` cells further."""
        size = [r + reach * j for r, j in zip(self.size, self.jump, strict=True)]
        return Field((size[0], size[1]), (self.jump[0] / factor, self.jump[1] / factor), self.whole)


def receptive_fields(plan: Plan) -> tuple[tuple[Field, ...], ...]:
    """Return the fields of each row's outputs: one, and for the head one for each level."""
    fields: list[tuple[Field, ...]] = []
    for layer in plan.layers:
        inputs = [fields[source][0] if source >= 0 else Field() for source in layer.sources]
        if layer.index == len(plan.layers) - 1:
            fields.append(tuple(inputs))  # a head looks at one cell of each level
        else:
            fields.append((_through(layer, inputs),))
    return tuple(fields)


def _through(layer: Layer, inputs: list[Field]) -> Field:
    field = _widest(inputs)
    step = _STEPS.get(layer.word)
    for _ in range(layer.repeats if step else 0):
        assert step is not None
        field = step(field, layer.args)
    return field


def _widest(fields: list[Field]) -> Field:
    rows, columns = (max(field.size[axis] for field in fields) for axis in (0, 1))
    return Field((rows, columns), fields[0].jump, any(field.whole for field in fields))


def _window(field: Field, args: dict[str, Any]) -> Field:
    return field.slide(args["k"], args["s"], args.get("d", 1))


def _inner(kernel: int, times: int = 1) -> Callable[[Field, dict[str, Any]], Field]:
    """Return the step of a block whose longest path has this kernel so often for each inner repeat."""

    def step(field: Field, args: dict[str, Any]) -> Field:
        for _ in range(times * args.get("n", 1)):
            field = field.slide(kernel)
        return field

    return step


def _transposed(field: Field, args: dict[str, Any]) -> Field:
    """A cell of the output lies under at most floor(d (k - 1) / s) + 1 cells of the input."""
    k, s = args.get("k") or args["kernel_size"], args.get("s") or args["stride"]
    return field.enlarge(s, args.get("dilation", 1) * (k - 1) // s)


def _upsample(field: Field, args: dict[str, Any]) -> Field:
    return field.enlarge(args["scale_factor"], int(args["mode"] == "bilinear" and args["scale_factor"] > 1))


def _ghost_bottleneck(field: Field, args: dict[str, Any]) -> Field:
    """Two ghost convolutions (their cheap half has kernel 5), and the window of a stride between."""
    k = (args["k"], args["s"]) if args["s"] == 2 else (1, 1)
    return field.slide(5).slide(*k).slide(5)


def _whole(field: Field, args: dict[str, Any]) -> Field:
    return Field(field.size, field.jump, True)


def _max_pool(field: Field, args: dict[str, Any]) -> Field:
    return field.slide(args["kernel_size"], args["stride"] or args["kernel_size"])


_STEPS: dict[str, Callable[[Field, dict[str, Any]], Field]] = {
    "Conv": _window,
    "DWConv": _window,
    "CrossConv": _window,
    "GhostConv": lambda field, args: _window(field, args).slide(5),
    "MixConv2d": lambda field, args: field.slide(max(args["k"]), args["s"]),
    "Focus": lambda field, args: _window(field.slide(2, 2), args),
    "Bottleneck": _inner(3),
    "BottleneckCSP": _inner(3),
    "C3": _inner(3),
    "C3x": _inner(3),
    "C3Ghost": _inner(5, 2),
    "C3SPP": lambda field, args: field.slide(max(args["k"])),
    "SPP": lambda field, args: field.slide(max(args["k"])),
    "SPPF": lambda field, args: field.slide(args["k"]).slide(args["k"]).slide(args["k"]),
    "GhostBottleneck": _ghost_bottleneck,
    "DWConvTranspose2d": _transposed,
    "nn.ConvTranspose2d": _transposed,
    "Contract": lambda field, args: field.slide(args["gain"], args["gain"]),
    "Expand": lambda field, args: field.enlarge(args["gain"]),
    "Proto": lambda field, args: field.slide(3).enlarge(2).slide(3),
    "nn.Upsample": _upsample,
    "nn.MaxPool2d": _max_pool,
    **dict.fromkeys(ATTENTION, _whole),
}
