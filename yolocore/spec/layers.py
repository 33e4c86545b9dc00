"""The values a plan is made of: one layer for each row, and what holds for the whole network.

Must not know how they are worked out (`plan` does) or built (the model package does).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from yolocore.errors import Problem
from yolocore.spec.architecture import Architecture
from yolocore.spec.sketch import Shape


@dataclass(frozen=True)
class Layer:
    """One row, resolved; `sources` are row numbers (-1 = the picture), shapes (channels, rows, columns).

    `num_activations` are the values one picture leaves in it for the backward pass.
    """

    index: int
    sources: tuple[int, ...]
    written_from: int | tuple[int, ...]
    word: str
    args: dict[str, Any]
    repeats: int
    in_channels: tuple[int, ...]
    out_channels: int
    out_shapes: tuple[Shape, ...]
    stride: float
    num_parameters: int
    flops: int
    place: str
    line: int
    column: int
    num_activations: int


@dataclass(frozen=True)
class Plan:
    """A network worked out; `anchors_px` level by level as (width, height) pairs in pixels."""

    architecture: Architecture
    layers: tuple[Layer, ...]
    save: tuple[int, ...]
    strides: tuple[float, ...]
    anchors_px: tuple[tuple[tuple[float, float], ...], ...]
    anchors_are_placeholders: bool
    num_classes: int
    num_masks: int
    state_entries: tuple[tuple[str, tuple[int, ...]], ...]
    num_parameters: int
    flops: int
    activation_bytes: int
    imgsz: tuple[int, int]
    warnings: tuple[Problem, ...]

    @property
    def num_levels(self) -> int:
        """Number of output maps."""
        return len(self.strides)

    @property
    def num_anchors(self) -> int:
        """Anchors of each level."""
        return len(self.anchors_px[0])

    @property
    def num_outputs(self) -> int:
        """Numbers per anchor: box, objectness, classes and mask coefficients."""
        return 5 + self.num_classes + self.num_masks

    @property
    def head_kind(self) -> str:
        """Detect or Segment."""
        return self.layers[-1].word

    @property
    def gflops(self) -> float:
        """Billions of operations for one picture of `imgsz`."""
        return self.flops / 1e9

    @property
    def in_channels(self) -> int:
        """Channels of a picture."""
        return self.architecture.ch

    def summary(self) -> dict[str, Any]:
        """Return the plan as plain JSON values, for the service and for people."""
        return {
            "head": self.head_kind,
            "num_classes": self.num_classes,
            "num_parameters": self.num_parameters,
            "gflops": round(self.gflops, 4),
            "activation_bytes": self.activation_bytes,
            "imgsz": list(self.imgsz),
            "strides": list(self.strides),
            "anchors": [[list(anchor) for anchor in level] for level in self.anchors_px],
            "anchors_are_placeholders": self.anchors_are_placeholders,
            "num_state_entries": len(self.state_entries),
            "save": list(self.save),
            "layers": [_layer_summary(layer) for layer in self.layers],
            "warnings": [problem.as_dict() for problem in self.warnings],
        }


def _layer_summary(layer: Layer) -> dict[str, Any]:
    return {
        "row": layer.index,
        "from": layer.written_from,
        "module": layer.word,
        "args": {name: _plain(value) for name, value in layer.args.items()},
        "repeats": layer.repeats,
        "in_channels": list(layer.in_channels),
        "out_channels": layer.out_channels,
        "out_shapes": [list(shape) for shape in layer.out_shapes],
        "stride": layer.stride,
        "num_parameters": layer.num_parameters,
        "gflops": round(layer.flops / 1e9, 6),
        "line": layer.line,
        "column": layer.column,
    }


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return [_plain(item) for item in value] if isinstance(value, tuple) else str(value)
