"""Turns rows into layers: channels, shapes, strides, parameters, operations, without building anything.

The plan is all the model package needs to build a network, and all the service needs to judge one: giants and
maps that do not meet are refused here, before a byte is allocated. Must not know torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from yolocore.errors import Problem
from yolocore.spec.architecture import MAX_ANCHORS, Anchors, Architecture, Row, raise_problems
from yolocore.spec.blocks import BLOCKS, proto
from yolocore.spec.layers import Layer, Plan
from yolocore.spec.sketch import Shape, Sketch, SketchError
from yolocore.spec.strides import MAX_SIDE, common_stride, scaled_repeats, stride_factor
from yolocore.spec.words import HEADS, MAX_CLASSES, MAX_REPEATS, MAX_WIDTH, WORDS

__all__ = ["Layer", "Plan", "plan_architecture"]

DEFAULT_CLASSES = 80
MAX_LEVELS = 5  # the loss weighs the levels against each other, by weights known for so many
MAX_PARAMETERS = 1_000_000_000
MAX_ENTRIES = 20_000
MAX_ACTIVATION_BYTES = 16 * 2**30
TIMES = "\u00d7"


def plan_architecture(
    arch: Architecture,
    *,
    num_classes: int | None = None,
    anchors: int | None = None,
    imgsz: tuple[int, int] = (640, 640),
    keep_output_width: bool = False,
) -> Plan:
    """Return the network an architecture describes, for pictures of (rows, columns) = imgsz pixels.

    `num_classes` and `anchors` (a count per level) override the file. Sizes are rounded up to a multiple of
    the largest stride. `keep_output_width` reproduces a habit of YOLOv5: a row whose nominal width equals
    anchors x (classes + 5) is not scaled. Raises ArchitectureError with `problems` naming rows and lines.
    """
    if not all(1 <= side <= MAX_SIDE for side in imgsz):
        raise_problems("image size", [Problem("BAD_IMAGE_SIZE", f"sides must be 1 to {MAX_SIDE} pixels")])
    unit = common_stride(arch)
    rows, columns = (math.ceil(side / unit) * unit for side in imgsz)
    return _Planner(arch, num_classes, anchors, keep_output_width).plan((rows, columns))


@dataclass(frozen=True)
class _Map:
    """What a row puts out; stride = picture pixels per cell."""

    shape: Shape
    stride: Fraction


class _RowError(ValueError):
    """A row that cannot be planned."""

    def __init__(self, code: str, message: str, mark: tuple[int, int] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.mark = mark


class _Planner:
    """Walks the rows once; a row that fails leaves None behind, and rows that need it are passed over."""

    def __init__(
        self, arch: Architecture, num_classes: int | None, anchors: int | None, keep_output_width: bool
    ) -> None:
        self.arch = arch
        self.problems: list[Problem] = []
        self.warnings = list(arch.warnings)
        self.num_classes = self._classes(num_classes)
        self.given: Anchors = arch.anchors if anchors is None else anchors
        self.num_anchors = self._count_anchors()
        self.unscaled = self.num_anchors * (self.num_classes + 5) if keep_output_width else None
        self.maps: list[_Map | None] = []
        self.layers: list[Layer] = []
        self.entries: list[tuple[str, tuple[int, ...]]] = []
        self.elements = 0

    def _classes(self, given: int | None) -> int:
        written = self.arch.rows[-1].args["nc"]
        count = self.arch.nc if given is None else given
        if count is not None and not 1 <= count <= MAX_CLASSES:
            message = f"the number of classes must be 1 to {MAX_CLASSES}"
            raise_problems(self.arch.source, [Problem("BAD_VALUE", message, value=str(count))])
        if count is None:
            count = written if isinstance(written, int) else DEFAULT_CLASSES
            if not isinstance(written, int):
                message = f"no nc: figures are for {count} classes, the dataset decides"
                self.warnings.append(Problem("CLASSES_FROM_DATASET", message))
        if isinstance(written, int) and written != count:
            self._fail(
                self.arch.rows[-1],
                "CLASS_COUNT",
                f"{written} classes are written here, but there are {count}; write nc",
            )
        return int(count)

    def _count_anchors(self) -> int:
        count = self.given if isinstance(self.given, int) else len(self.given[0]) // 2
        if not 1 <= count <= MAX_ANCHORS:
            self.problems.append(
                Problem("BAD_ANCHORS", f"a level has 1 to {MAX_ANCHORS} anchors", value=str(count))
            )
        return count

    def _fail(self, row: Row, code: str, message: str, mark: tuple[int, int] | None = None) -> None:
        named = message if message.startswith(row.word) else f"{row.word}: {message}"
        line, column = mark or (row.line, row.column)
        said = f"{row.section}: row {row.index} {named}"
        self.problems.append(Problem(code, said, line=line, column=column, row=row.index))

    def plan(self, imgsz: tuple[int, int]) -> Plan:
        """Walk the rows and return the plan."""
        self.picture = _Map(Shape(self.arch.ch, *imgsz), Fraction(1))
        for row in self.arch.rows:
            self.maps.append(self._row(row))
            if any(problem.code == "TOO_LARGE" for problem in self.problems):
                break
        raise_problems(self.arch.source, self.problems)
        self._note_unused()
        strides, anchors = self._levels()
        raise_problems(self.arch.source, self.problems)
        head = self.layers[-1]
        return Plan(
            architecture=self.arch,
            layers=tuple(self.layers),
            save=self._save(),
            strides=strides,
            anchors_px=anchors,
            anchors_are_placeholders=isinstance(self.given, int),
            num_classes=self.num_classes,
            num_masks=head.args.get("nm", 0),
            state_entries=tuple(self.entries),
            num_parameters=sum(layer.num_parameters for layer in self.layers),
            flops=sum(layer.flops for layer in self.layers),
            activation_bytes=4 * self.elements,
            imgsz=imgsz,
            warnings=tuple(self.warnings),
        )

    def _row(self, row: Row) -> _Map | None:
        written = row.sources if isinstance(row.sources, tuple) else (row.sources,)
        sources = tuple(x if x >= 0 else row.index + x for x in written)
        found = [self.maps[x] if x >= 0 else self.picture for x in sources]
        inputs = [item for item in found if item is not None]
        if len(inputs) < len(found):
            return None
        sketch = Sketch()
        try:
            _check_inputs(row, len(inputs))
            layer, out = self._layer(row, sources, inputs, sketch)
        except _RowError as error:
            self._fail(row, error.code, str(error), error.mark)
            return None
        except SketchError as error:
            self._fail(row, "BAD_SHAPE", f"{row.word}: {error}")
            return None
        self.entries += sketch.entries
        self.elements += sketch.elements
        self.layers.append(layer)
        return out

    def _layer(
        self, row: Row, sources: tuple[int, ...], inputs: list[_Map], sketch: Sketch
    ) -> tuple[Layer, _Map]:
        if row.word in HEADS:
            args, repeats = self._head_args(row, inputs), 1
            shapes = _sketch_head(sketch, f"model.{row.index}", inputs, args, self.num_anchors)
            out = _Map(shapes[0], inputs[0].stride)
        elif row.word == "Concat":
            args, repeats, out = dict(row.args), 1, self._join(row, sources, inputs)
        else:
            args, repeats = self._block_args(row, inputs[0].shape)
            out = _sketch_block(sketch, row, args, repeats, inputs[0])
        self._check_size(row, sketch)
        layer = Layer(
            index=row.index,
            sources=sources,
            written_from=row.sources,
            word=row.word,
            args=args,
            repeats=repeats,
            in_channels=tuple(item.shape.c for item in inputs),
            out_channels=out.shape.c,
            out_shapes=shapes if row.word in HEADS else (out.shape,),
            stride=float(out.stride),
            num_parameters=sketch.num_parameters,
            flops=sketch.operations,
            place=row.section,
            line=row.line,
            column=row.column,
            num_activations=sketch.elements,
        )
        return layer, out

    def _scale_width(self, width: int) -> int:
        if width == self.unscaled:
            return width
        unit = self.arch.channel_multiple
        scaled = math.ceil(width * self.arch.width_multiple / unit) * unit
        if scaled > MAX_WIDTH:
            raise _RowError("TOO_LARGE", f"{scaled} channels, at most {MAX_WIDTH} are allowed")
        return scaled

    def _block_args(self, row: Row, x: Shape) -> tuple[dict[str, Any], int]:
        """Return the arguments with scaled width, and how many copies stand in a sequence."""
        args, word, repeats = dict(row.args), WORDS[row.word], scaled_repeats(row, self.arch)
        if repeats > MAX_REPEATS:
            raise _RowError("TOO_LARGE", f"{repeats} repeats, at most {MAX_REPEATS} are allowed")
        if word.scaled:
            args["c2"] = self._scale_width(args["c2"])
        if word.inner:
            args["n"], repeats = repeats, 1
        if row.word == "nn.BatchNorm2d":
            args["num_features"] = x.c
        if "c1" in args and args["c1"] != x.c:
            raise _RowError("BAD_CHANNELS", f"c1 is {args['c1']}, but {x.c} channels come in")
        return args, repeats

    def _head_args(self, row: Row, inputs: list[_Map]) -> dict[str, Any]:
        args = {"nc": self.num_classes}
        if len(inputs) > MAX_LEVELS:
            raise _RowError(
                "LEVEL_COUNT", f"{row.word} takes {len(inputs)} maps, at most {MAX_LEVELS} can be trained"
            )
        if row.word == "Segment":
            args |= {"nm": row.args["nm"], "npr": self._scale_width(row.args["npr"])}
        if not isinstance(self.given, int) and len(self.given) != len(inputs):
            levels = len(self.given)
            raise _RowError(
                "LEVEL_COUNT", f"{row.word} takes {len(inputs)} maps, but anchors has {levels} levels"
            )
        return args

    def _join(self, row: Row, sources: tuple[int, ...], inputs: list[_Map]) -> _Map:
        """Return the concatenation, or name the two rows that do not meet."""
        first = inputs[0]
        for place, (source, item) in enumerate(zip(sources[1:], inputs[1:], strict=True), 1):
            a, b = first.shape, item.shape
            if (a.h, a.w) != (b.h, b.w) or first.stride != item.stride:
                message = (
                    f"Concat joins {a.h}{TIMES}{a.w} from {_called(sources[0])} with {b.h}{TIMES}{b.w} from "
                    f"{_called(source)}; the maps must be of one size (their strides are "
                    f"{_told(first.stride)} and {_told(item.stride)})"
                )
                raise _RowError("SIZE_MISMATCH", message, row.source_marks[place])
        return replace(first, shape=first.shape._replace(c=sum(item.shape.c for item in inputs)))

    def _check_size(self, row: Row, sketch: Sketch) -> None:
        total = sum(layer.num_parameters for layer in self.layers) + sketch.num_parameters
        if total > MAX_PARAMETERS:
            raise _RowError(
                "TOO_LARGE", f"{total:,} parameters so far, at most {MAX_PARAMETERS:,} are allowed"
            )
        if len(self.entries) + len(sketch.entries) > MAX_ENTRIES:
            raise _RowError("TOO_LARGE", f"more than {MAX_ENTRIES:,} tensors")
        size = 4 * (self.elements + sketch.elements)
        if size > MAX_ACTIVATION_BYTES:
            message = (
                f"up to here a picture of {self.picture.shape.h}{TIMES}{self.picture.shape.w} needs "
                f"{size / 2**30:.1f} GiB of activations, {MAX_ACTIVATION_BYTES / 2**30:.0f} are allowed"
            )
            raise _RowError("TOO_LARGE", message)

    def _levels(self) -> tuple[tuple[float, ...], tuple[tuple[tuple[float, float], ...], ...]]:
        """Return strides and anchors of the head, anchors turned round where they run against the strides."""
        row, layer = self.arch.rows[-1], self.layers[-1]
        strides = []
        for source in layer.sources:
            item = self.maps[source] if source >= 0 else self.picture
            assert item is not None
            strides.append(item.stride)
            self._check_grid(row, source, item)
        if isinstance(self.given, int):
            levels = [tuple(float(value) for value in range(2 * self.given))] * len(strides)
        else:
            levels = list(self.given)
        pairs = [tuple(zip(level[::2], level[1::2], strict=True)) for level in levels]
        areas = [sum(w * h for w, h in level) / len(level) for level in pairs]
        growth = areas[-1] - areas[0]
        if growth and (growth > 0) != (strides[-1] - strides[0] > 0):
            pairs.reverse()
        return tuple(float(stride) for stride in strides), tuple(pairs)

    def _check_grid(self, row: Row, source: int, item: _Map) -> None:
        """A cell must stand for stride x stride pixels, or boxes are decoded in the wrong place."""
        picture = self.picture.shape
        for side, cells in ((picture.h, item.shape.h), (picture.w, item.shape.w)):
            if side % item.stride == 0 and cells != side / item.stride:
                message = (
                    f"{_called(source)} has {item.shape.h}{TIMES}{item.shape.w} cells of stride "
                    f"{_told(item.stride)} for a picture of {picture.h}{TIMES}{picture.w}: no whole grid"
                )
                self._fail(row, "GRID_MISMATCH", message)
                return
        if item.stride.denominator != 1:
            self._fail(row, "GRID_MISMATCH", f"{_called(source)} has a stride of {_told(item.stride)} pixels")

    def _save(self) -> tuple[int, ...]:
        """Return the rows whose output is needed later, one entry for each need, sorted."""
        needed = []
        for row in self.arch.rows:
            written = row.sources if isinstance(row.sources, tuple) else (row.sources,)
            needed += [x % row.index if row.index else x for x in written if x != -1]
        return tuple(sorted(needed))

    def _note_unused(self) -> None:
        used = {source for layer in self.layers for source in layer.sources}
        for row in self.arch.rows[:-1]:
            if row.index not in used:
                message = f"{row.section}: nothing takes the output of row {row.index} ({row.word})"
                self.warnings.append(
                    Problem("UNUSED_ROW", message, line=row.line, column=row.column, row=row.index)
                )


def _check_inputs(row: Row, count: int) -> None:
    joins = WORDS[row.word].joins
    if joins and not isinstance(row.sources, tuple):
        raise _RowError("BAD_FROM", f"{row.word} takes a list of rows, found {row.sources}")
    if not joins and isinstance(row.sources, tuple):
        raise _RowError("BAD_FROM", f"{row.word} takes one row, found a list of {count}")
    if joins and row.number != 1:
        raise _RowError("BAD_NUMBER", f"{row.word} cannot be repeated")


def _sketch_block(sketch: Sketch, row: Row, args: dict[str, Any], repeats: int, x: _Map) -> _Map:
    """Note a block, or a sequence of equal ones."""
    key = f"model.{row.index}"
    shape, stride = x.shape, x.stride
    for i in range(repeats):
        before = shape
        shape = BLOCKS[row.word](sketch, f"{key}.{i}" if repeats > 1 else key, shape, **_without_c1(args))
        stride *= stride_factor(row.word, args)
        if repeats > 1 and i == 0 and shape.c != before.c:
            message = f"a repeated {row.word} keeps its width, found {before.c} in and {shape.c} out"
            raise _RowError("BAD_CHANNELS", message)
        if not all(1 <= side <= 2 * MAX_SIDE for side in (shape.h, shape.w)) or shape.c > MAX_WIDTH * 4:
            raise _RowError(
                "TOO_LARGE", f"{row.word} puts out {shape.c} channels of {shape.h}{TIMES}{shape.w}"
            )
    return _Map(shape, stride)


def _without_c1(args: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in args.items() if name != "c1"}


def _sketch_head(
    sketch: Sketch, key: str, inputs: Sequence[_Map], args: dict[str, Any], num_anchors: int
) -> tuple[Shape, ...]:
    """Note Detect or Segment; returns the shapes of its raw maps (anchors x numbers as channels)."""
    width = num_anchors * (5 + args["nc"] + args.get("nm", 0))
    sketch.buffer(f"{key}.anchors", len(inputs), num_anchors, 2)
    shapes = tuple(
        sketch.conv2d(f"{key}.m.{i}", item.shape, width, bias=True) for i, item in enumerate(inputs)
    )
    if "nm" in args:
        proto(sketch, f"{key}.proto", inputs[0].shape, args["npr"], args["nm"])
    return shapes


def _called(source: int) -> str:
    return "the picture" if source < 0 else f"row {source}"


def _told(stride: Fraction) -> str:
    return str(stride.numerator) if stride.denominator == 1 else f"{stride.numerator}/{stride.denominator}"
