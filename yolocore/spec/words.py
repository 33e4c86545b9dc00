"""The closed table of words a model YAML may use: each word's arguments, their kinds and bounds.

A word is what stands third in a row. Its arguments become keyword arguments of the block of that name, after
checks by kind; nothing is ever evaluated. Must not know how a block computes (`sketch` and the model do).
Facts of the layer grammar: which words have their width scaled, which repeat inside.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from yolocore.spec.arithmetic import SumError, looks_like_sum, work_out

MAX_WIDTH = 65_536
MAX_KERNEL = 63
MAX_REPEATS = 100
MAX_CLASSES = 20_000

ACTIVATIONS = {
    "nn.SiLU": None,
    "nn.ReLU": None,
    "nn.ReLU6": None,
    "nn.LeakyReLU": 0.01,
    "nn.Hardswish": None,
    "nn.Mish": None,
    "nn.GELU": None,
    "nn.ELU": 1.0,
    "nn.Sigmoid": None,
    "nn.Tanh": None,
    "nn.Identity": None,
}
_ACTIVATION = re.compile(
    r"(?P<name>nn\.[A-Za-z0-9]{1,16})(\( *((negative_slope *= *|alpha *= *)?(?P<value>[0-9]*\.?[0-9]+))?"
    r" *,? *(inplace *= *(True|False))? *\))?\Z"
)
_NUMBER = re.compile(r"[-+]?[0-9]{1,9}(\.[0-9]{1,9})?\Z")


@dataclass(frozen=True)
class Activation:
    """An activation by name; `value` is the slope of LeakyReLU or the alpha of ELU."""

    name: str = "nn.SiLU"
    value: float | None = None

    def __str__(self) -> str:
        return f"{self.name}({'' if self.value is None else f'{self.value:g}'})"


class ArgumentError(ValueError):
    """A value that its parameter does not take; the message says what is taken."""

    def __init__(self, message: str, position: int | None = None) -> None:
        super().__init__(message)
        self.position = position


class Required(Enum):
    """Marks a parameter without default."""

    REQUIRED = "required"


REQUIRED = Required.REQUIRED
Check = Callable[[Any], Any]


@dataclass(frozen=True)
class Param:
    """One argument of a word, by position."""

    name: str
    check: Check
    default: Any = REQUIRED


@dataclass(frozen=True)
class Word:
    """One word: `scaled` = first argument is a width times the width multiple; `inner` = repeats inside."""

    name: str
    params: tuple[Param, ...]
    scaled: bool = True
    inner: bool = False
    joins: bool = False

    @property
    def usage(self) -> str:
        """Return the argument list for messages, such as [c2, k=1, s=1]."""
        shown = (
            param.name if param.default is REQUIRED else f"{param.name}={param.default}"
            for param in self.params
        )
        return f"[{', '.join(shown)}]"


def parse_activation(text: object) -> Activation:
    """Return the activation a text such as `nn.LeakyReLU(0.1)` names; raises ArgumentError."""
    match = _ACTIVATION.match(text) if isinstance(text, str) and len(text) <= 80 else None
    name = match["name"] if match else None
    if match is None or name not in ACTIVATIONS:
        raise ArgumentError(f"must be one of {', '.join(ACTIVATIONS)}; expressions are not accepted")
    default = ACTIVATIONS[name]
    if default is None and match["value"] is not None:
        raise ArgumentError(f"{name} takes no number")
    value = float(match["value"]) if match["value"] is not None else default
    return Activation(name, value)


def literal(value: Any) -> Any:
    """Return what a text argument stands for: None, True, False, a number or a sum of them; else the text.

    Raises ArgumentError for a sum that cannot be worked out.
    """
    if not isinstance(value, str):
        return value
    named = {"None": None, "True": True, "False": False}
    if value in named:
        return named[value]
    if _NUMBER.match(value):
        return float(value) if "." in value else int(value)
    if looks_like_sum(value):
        try:
            return work_out(value)
        except SumError as error:
            raise ArgumentError(f"is no sum that can be worked out: {error}") from None
    return value


def whole(low: int, high: int) -> Check:
    """Check for a whole number within bounds."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ArgumentError(f"must be a whole number from {low} to {high}")
        return value

    return check


def real(low: float, high: float) -> Check:
    """Check for a number above `low` and up to `high`."""

    def check(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low < value <= high:
            raise ArgumentError(f"must be a number over {low:g} and up to {high:g}")
        return float(value)

    return check


def flag(value: Any) -> bool:
    """Check for true or false."""
    if value not in (True, False) or isinstance(value, float):
        raise ArgumentError("must be True or False")
    return bool(value)


def optional(inner: Check) -> Check:
    """Check for None or what another check takes."""
    return lambda value: None if value is None else inner(value)


def pair_or(inner: Check) -> Check:
    """Check for one value, or for a (vertical, horizontal) pair of them."""

    def check(value: Any) -> Any:
        if isinstance(value, tuple) and len(value) == 2:
            return (inner(value[0]), inner(value[1]))
        return inner(value)

    return check


def several(inner: Check, low: int, high: int) -> Check:
    """Check for a list of `low` to `high` values."""

    def check(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, tuple) or not low <= len(value) <= high:
            count = str(low) if low == high else f"{low} to {high}"
            raise ArgumentError(f"must be a list of {count} values")
        return tuple(inner(item) for item in value)

    return check


def switch_or_activation(value: Any) -> bool | Activation:
    """Check for an on/off switch or the name of an activation."""
    return parse_activation(value) if isinstance(value, str) else flag(value)


def one_of(*choices: object) -> Check:
    """Check for one of a few values."""

    def check(value: Any) -> Any:
        for choice in choices:
            if type(choice) is type(value) and choice == value:
                return value
        raise ArgumentError(f"must be {' or '.join(map(str, choices))}")

    return check


def odd_kernel(value: Any) -> int:
    """Check for an odd kernel size (an even one would change the size of the map)."""
    size = whole(1, MAX_KERNEL)(value)
    if size % 2 == 0:
        raise ArgumentError("must be odd")
    return int(size)


def _zero_pads(value: Any) -> tuple[int, ...]:
    edge = whole(0, 64)
    return (edge(value),) * 4 if isinstance(value, int) else several(edge, 4, 4)(value)


def _ignored(value: Any) -> None:
    return None


def _class_count(value: Any) -> int | str:
    return value if value == "nc" else int(whole(1, MAX_CLASSES)(value))


def _anchor_values(value: Any) -> Any:
    if value == "anchors" or isinstance(value, int | tuple):
        return value
    raise ArgumentError("must be anchors, or lists of numbers, or their count")


_KERNEL = whole(1, MAX_KERNEL)
_KERNELS = several(odd_kernel, 1, 8)
_PAD = whole(0, MAX_KERNEL)
_STEP = whole(1, 32)
_COUNT = whole(1, MAX_WIDTH)
_C2 = Param("c2", whole(1, MAX_WIDTH))
_C1 = Param("c1", whole(1, MAX_WIDTH))
_K = Param("k", pair_or(_KERNEL), 1)
_S = Param("s", _STEP, 1)
_P = Param("p", optional(pair_or(_PAD)), None)
_G = Param("g", _COUNT, 1)
_D = Param("d", whole(1, 16), 1)
_ON = Param("act", switch_or_activation, True)
_SHORTCUT = Param("shortcut", flag, True)
_E = Param("e", real(0, 16), 0.5)
_CSP = (_C2, _SHORTCUT, _G, _E)
_NC = Param("nc", _class_count)
_ANCHORS = Param("anchors", _anchor_values)


def _table(words: Sequence[Word]) -> dict[str, Word]:
    return {word.name: word for word in words}


WORDS: dict[str, Word] = _table(
    [
        Word("Conv", (_C2, _K, _S, _P, _G, _D, _ON)),
        Word("DWConv", (_C2, _K, _S, _D, _ON)),
        Word(
            "DWConvTranspose2d",
            (_C2, Param("k", _KERNEL, 1), _S, Param("p1", _PAD, 0), Param("p2", _PAD, 0)),
        ),
        Word("Bottleneck", _CSP),
        Word("BottleneckCSP", _CSP, inner=True),
        Word("C3", _CSP, inner=True),
        Word("C3x", _CSP, inner=True),
        Word("C3TR", _CSP, inner=True),
        Word("C3Ghost", _CSP, inner=True),
        Word(
            "C3SPP",
            (_C2, Param("k", _KERNELS, (5, 9, 13)), Param("n", whole(1, MAX_REPEATS), 1), _SHORTCUT, _G, _E),
        ),
        Word(
            "CrossConv",
            (
                _C2,
                Param("k", _KERNEL, 3),
                _S,
                _G,
                Param("e", real(0, 16), 1.0),
                Param("shortcut", flag, False),
            ),
        ),
        Word("SPP", (_C2, Param("k", _KERNELS, (5, 9, 13)))),
        Word("SPPF", (_C2, Param("k", odd_kernel, 5))),
        Word("Focus", (_C2, _K, _S, _P, _G, _ON)),
        Word("GhostConv", (_C2, _K, _S, _G, _ON)),
        Word("GhostBottleneck", (_C2, Param("k", _KERNEL, 3), Param("s", one_of(1, 2), 1))),
        Word(
            "MixConv2d",
            (_C2, Param("k", several(odd_kernel, 1, 8), (1, 3)), _S, Param("equal_ch", flag, True)),
        ),
        Word(
            "nn.ConvTranspose2d",
            (
                _C2,
                Param("kernel_size", _KERNEL),
                Param("stride", _STEP, 1),
                Param("padding", _PAD, 0),
                Param("output_padding", _PAD, 0),
                Param("groups", _COUNT, 1),
                Param("bias", flag, True),
                Param("dilation", whole(1, 16), 1),
            ),
        ),
        Word("Contract", (Param("gain", whole(1, 32), 2),), scaled=False),
        Word("Expand", (Param("gain", whole(1, 32), 2),), scaled=False),
        Word("Concat", (Param("dimension", one_of(1), 1),), scaled=False, joins=True),
        Word(
            "TransformerBlock",
            (_C1, _C2, Param("num_heads", whole(1, 64)), Param("num_layers", whole(1, MAX_REPEATS))),
            scaled=False,
        ),
        Word("Proto", (_C1, Param("c_", _COUNT, 256), Param("c2", _COUNT, 32)), scaled=False),
        Word(
            "nn.Upsample",
            (
                Param("size", one_of(None), None),
                Param("scale_factor", whole(1, 32), 2),
                Param("mode", one_of("nearest", "bilinear"), "nearest"),
            ),
            scaled=False,
        ),
        Word(
            "nn.MaxPool2d",
            (
                Param("kernel_size", _KERNEL),
                Param("stride", optional(_STEP), None),
                Param("padding", _PAD, 0),
            ),
            scaled=False,
        ),
        Word("nn.ZeroPad2d", (Param("padding", _zero_pads),), scaled=False),
        Word("nn.BatchNorm2d", (Param("num_features", _ignored, None),), scaled=False),
        Word("nn.Identity", (), scaled=False),
        Word("Detect", (_NC, _ANCHORS), scaled=False, joins=True),
        Word(
            "Segment",
            (_NC, _ANCHORS, Param("nm", whole(1, 1024), 32), Param("npr", whole(1, MAX_WIDTH), 256)),
            scaled=False,
            joins=True,
        ),
    ]
)

HEADS = ("Detect", "Segment")
# Words of the reference that cannot be a row of a detector, and why.
REFUSED = {
    "Classify": "it ends a classification network; this is for detectors",
    "TransformerLayer": "it works on tokens, not on maps; write TransformerBlock or C3TR",
}


def bind_arguments(word: Word, values: Sequence[Any]) -> dict[str, Any]:
    """Return every parameter of a word with its checked value or default.

    Raises ArgumentError; its `position` is the argument at fault, None where one is missing.
    """
    if len(values) > len(word.params):
        message = f"{word.name} takes at most {len(word.params)} arguments {word.usage}, found {len(values)}"
        raise ArgumentError(message, len(word.params))
    bound: dict[str, Any] = {}
    for position, param in enumerate(word.params):
        if position >= len(values):
            if param.default is REQUIRED:
                raise ArgumentError(f"{word.name} needs {param.name}: {word.usage}")
            bound[param.name] = param.default
            continue
        try:
            bound[param.name] = param.check(literal(values[position]))
        except ArgumentError as error:
            text = (
                " (expressions are not accepted, but sums of numbers are)"
                if isinstance(values[position], str)
                else ""
            )
            raise ArgumentError(f"{word.name}: {param.name} {error}{text}", position) from None
    return bound
