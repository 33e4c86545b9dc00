"""Reads a model YAML into rows: what its author wrote, checked, with the place of everything.

Every mistake is a problem with line, column, row and value; as many as possible are found at once. Nothing is
evaluated: words and arguments come from the closed table in `words`. Must not know channels and shapes, which
need the number of classes (`plan` does).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from yolocore.errors import ArchitectureError, Problem
from yolocore.spec.words import (
    ACTIVATIONS,
    HEADS,
    MAX_CLASSES,
    MAX_REPEATS,
    REFUSED,
    WORDS,
    Activation,
    ArgumentError,
    bind_arguments,
    literal,
    parse_activation,
    real,
    whole,
)
from yolocore.spec.yamlsafe import Mapping, Node, Scalar, Sequence, YamlError, load_yaml, shorten

MAX_ROWS = 300
MAX_PROBLEMS = 20
MAX_LEVELS = 10
MAX_ANCHORS = 32

Anchors = tuple[tuple[float, ...], ...] | int
KEYS = (
    "nc",
    "depth_multiple",
    "width_multiple",
    "anchors",
    "backbone",
    "head",
    "activation",
    "channel_multiple",
    "ch",
    "inplace",
)


@dataclass(frozen=True)
class Row:
    """One row: `sources` as written (negative = relative), `args` bound by name, where it stood.

    `source_marks` are the (line, column) of each number in `from`.
    """

    index: int
    section: str
    sources: int | tuple[int, ...]
    number: int
    word: str
    args: dict[str, Any]
    line: int
    column: int
    source_marks: tuple[tuple[int, int], ...] = ()

    @property
    def place(self) -> str:
        """Return how messages call the row, such as `head[2] (row 12)`."""
        return f"{self.section} (row {self.index})"


@dataclass(frozen=True)
class Architecture:
    """What a model YAML says; `anchors` in pixels level by level, or how many a level has.

    `marks` are the (line, column) of its keys.
    """

    rows: tuple[Row, ...]
    num_backbone_rows: int
    anchors: Anchors
    nc: int | None
    depth_multiple: float
    width_multiple: float
    activation: Activation | None
    channel_multiple: int
    ch: int
    inplace: bool
    warnings: tuple[Problem, ...]
    source: str
    text: str
    marks: dict[str, tuple[int, int]]

    def mark(self, key: str) -> tuple[int | None, int | None]:
        """Return the line and column of a key; (None, None) where it is not written."""
        return self.marks.get(key, (None, None))


def parse_architecture(text: str | bytes, *, source: str = "model.yaml") -> Architecture:
    """Return the checked rows and keys of a model YAML.

    Raises ArchitectureError with `problems` (code, message, line, column, row, value), sorted by line.
    """
    try:
        root = load_yaml(text)
    except YamlError as error:
        raise ArchitectureError(
            f"{source}: {error.message}",
            code=error.code,
            place=error.place,
            value=error.value,
            problems=error.problems,
        ) from None
    reader = _Reader()
    fields = reader.read(root)
    reader.raise_problems(source)
    shown = text if isinstance(text, str) else text.decode("utf-8-sig")
    return Architecture(**fields, warnings=tuple(reader.warnings), source=source, text=shown)


def raise_problems(source: str, problems: list[Problem]) -> None:
    """Raise ArchitectureError if there are problems, sorted by line, at most MAX_PROBLEMS of them."""
    if not problems:
        return
    ordered = sorted(problems, key=lambda problem: (problem.line or 0, problem.column or 0))[:MAX_PROBLEMS]
    first = ordered[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    place = f"line {first.line}" if first.line else None
    if place and first.row is not None:
        place += f", row {first.row}"
    message = f"{source}: {first.message}{more}"
    raise ArchitectureError(message, code=first.code, place=place, value=first.value, problems=ordered)


def plain(node: Node) -> Any:
    """Return a node as plain values; lists become tuples."""
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, Sequence):
        return tuple(plain(item) for item in node.items)
    return {key: plain(item) for key, item in node.items.items()}


class _Reader:
    """Goes over the tree once and collects problems."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []

    def raise_problems(self, source: str) -> None:
        raise_problems(source, self.problems)

    def problem(self, code: str, message: str, node: Node, *, row: int | None = None) -> None:
        value = shorten(plain(node)) if isinstance(node, Scalar | Sequence) and node.size < 50 else None
        self.problems.append(
            Problem(code, message, line=node.line, column=node.column, row=row, value=value),
        )

    def read(self, root: Node) -> dict[str, Any]:
        """Return the fields of an Architecture; meaningless if there are problems."""
        if not isinstance(root, Mapping):
            self.problem("NOT_A_MODEL", "a model YAML is a mapping with backbone and head", root)
            return {}
        for key, mark in root.keys.items():
            if key not in KEYS:
                shown = shorten(key)
                close = difflib.get_close_matches(shown, KEYS, 1)
                hint = f"; did you mean {close[0]}?" if close else ""
                message = f"the key {shown!r} means nothing here and is ignored{hint}"
                self.warnings.append(
                    Problem("UNUSED_KEY", message, line=mark.line, column=mark.column, value=shown)
                )
        fields = self._scalars(root)
        fields["marks"] = {key: (mark.line, mark.column) for key, mark in root.keys.items()}
        fields["anchors"] = self._anchors_of(root)
        rows: list[Row] = []
        for section in ("backbone", "head"):
            self._section(root, section, rows)
            if section == "backbone":
                fields["num_backbone_rows"] = len(rows)
        fields["rows"] = tuple(rows)
        if not self.problems:
            self._heads(rows)
            fields["anchors"] = self._literal_anchors(root, rows, fields["anchors"])
        return fields

    def _scalars(self, root: Mapping) -> dict[str, Any]:
        checks: dict[str, tuple[Callable[[Any], Any], Any]] = {
            "nc": (whole(1, MAX_CLASSES), None),
            "depth_multiple": (real(0, 10), 1.0),
            "width_multiple": (real(0, 10), 1.0),
            "channel_multiple": (whole(1, 512), 8),
            "ch": (whole(1, 64), 3),
            "inplace": (_switch, True),
            "activation": (parse_activation, None),
        }
        fields: dict[str, Any] = {}
        for key, (check, default) in checks.items():
            fields[key] = default
            node = root.items.get(key)
            if node is None:
                continue
            try:
                fields[key] = check(plain(node))
            except ArgumentError as error:
                code = "BAD_ACTIVATION" if key == "activation" else "BAD_VALUE"
                self.problem(code, f"{key} {error}", node)
        return fields

    def _anchors_of(self, root: Mapping) -> Anchors:
        node = root.items.get("anchors")
        if node is None:
            self.problem("ANCHORS_MISSING", "the key anchors is missing (lists of numbers, or a count)", root)
            return 0
        return self._anchors(node)

    def _anchors(self, node: Node) -> Anchors:
        if isinstance(node, Scalar):
            return self._count(node)
        levels = plain(node)
        if not isinstance(levels, tuple) or not 1 <= len(levels) <= MAX_LEVELS:
            self.problem("BAD_ANCHORS", f"anchors must be 1 to {MAX_LEVELS} lists, one for each level", node)
            return 0
        assert isinstance(node, Sequence)
        for level, place in zip(levels, node.items, strict=True):
            message = _anchor_fault(level, len(levels[0]) if isinstance(levels[0], tuple) else 0)
            if message:
                self.problem("BAD_ANCHORS", message, place)
                return 0
        return tuple(tuple(float(value) for value in level) for level in levels)

    def _count(self, node: Scalar) -> int:
        try:
            return int(whole(1, MAX_ANCHORS)(node.value))
        except ArgumentError as error:
            self.problem("BAD_ANCHORS", f"the number of anchors {error}", node)
            return 0

    def _section(self, root: Mapping, section: str, rows: list[Row]) -> None:
        node = root.items.get(section)
        if node is None:
            self.problem("SECTION_MISSING", f"the key {section} is missing", root)
            return
        if not isinstance(node, Sequence) or not node.items:
            self.problem("SECTION_EMPTY", f"{section} must be a list of rows", node)
            return
        for offset, item in enumerate(node.items):
            index = len(rows)
            if index >= MAX_ROWS:
                self.problem("TOO_MANY_ROWS", f"more than {MAX_ROWS} rows", item, row=index)
                return
            rows.append(self._row(item, f"{section}[{offset}]", index))

    def _row(self, node: Node, place: str, index: int) -> Row:
        row = Row(index, place, -1, 1, "", {}, node.line, node.column)
        if not isinstance(node, Sequence) or len(node.items) not in (3, 4):
            message = f"{place}: a row is a list [from, number, module, arguments]"
            self.problem("BAD_ROW", message, node, row=index)
            return row
        sources = self._sources(node.items[0], place, index)
        number = self._number(node.items[1], place, index)
        word, args = self._module(node, place, index)
        return Row(index, place, sources, number, word, args, node.line, node.column, _marks(node.items[0]))

    def _sources(self, node: Node, place: str, index: int) -> int | tuple[int, ...]:
        value = plain(node)
        listed = value if isinstance(value, tuple) else (value,)
        if not 1 <= len(listed) <= 64 or any(isinstance(x, bool) or not isinstance(x, int) for x in listed):
            self.problem(
                "BAD_FROM", f"{place}: from must be a whole number or a list of them", node, row=index
            )
            return -1
        for source in listed:
            if source >= index:
                what = "itself" if source == index else f"row {source}, which comes later"
                self.problem("BAD_FROM", f"{place}: row {index} takes its input from {what}", node, row=index)
            elif source < -max(index, 1):
                message = (
                    f"{place}: from {source} points before the first row (row {index} has {index} before it)"
                )
                self.problem("BAD_FROM", message, node, row=index)
            else:
                continue
            return -1
        return value if isinstance(value, tuple) else int(value)

    def _number(self, node: Node, place: str, index: int) -> int:
        try:
            return int(whole(1, MAX_REPEATS)(literal(plain(node))))
        except ArgumentError as error:
            self.problem("BAD_NUMBER", f"{place}: the number of repeats {error}", node, row=index)
            return 1

    def _module(self, node: Sequence, place: str, index: int) -> tuple[str, dict[str, Any]]:
        name = plain(node.items[2])
        word = WORDS.get(name) if isinstance(name, str) else None
        if word is None:
            self.problem("UNKNOWN_MODULE", f"{place}: {_unknown(name)}", node.items[2], row=index)
            return "", {}
        if len(node.items) == 3:
            values: Node = Sequence((), node.line, node.column, 1)
        else:
            values = node.items[3]
        if not isinstance(values, Sequence):
            self.problem("BAD_ARGUMENT", f"{place}: the arguments must be a list", values, row=index)
            return word.name, {}
        try:
            return word.name, bind_arguments(word, plain(values))
        except ArgumentError as error:
            fault = values if error.position is None else values.items[error.position]
            self.problem("BAD_ARGUMENT", f"{place}: {error}", fault, row=index)
            return word.name, {}

    def _heads(self, rows: list[Row]) -> None:
        heads = [row for row in rows if row.word in HEADS]
        last = rows[-1]
        if not heads:
            self._at(last, "HEAD_MISSING", f"the last row must be {' or '.join(HEADS)}")
        for row in heads[:-1]:
            self._at(
                row,
                "SECOND_HEAD",
                f"{row.word} stands here and again in row {heads[-1].index}; one is allowed",
            )
        if heads and heads[-1] is not last:
            self._at(heads[-1], "HEAD_NOT_LAST", f"{heads[-1].word} must be the last row")

    def _at(self, row: Row, code: str, message: str) -> None:
        self.problems.append(
            Problem(code, f"{row.section}: {message}", line=row.line, column=row.column, row=row.index)
        )

    def _literal_anchors(self, root: Mapping, rows: list[Row], anchors: Anchors) -> Anchors:
        """Return the anchors in force: those written in the head's own row win over the key."""
        if self.problems or rows[-1].args["anchors"] == "anchors":
            return anchors
        section = root.items["head"]
        assert isinstance(section, Sequence)
        row = section.items[-1]
        assert isinstance(row, Sequence)
        arguments = row.items[3]
        assert isinstance(arguments, Sequence)
        return self._anchors(arguments.items[1])


def _marks(node: Node) -> tuple[tuple[int, int], ...]:
    items = node.items if isinstance(node, Sequence) else (node,)
    return tuple((item.line, item.column) for item in items)


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ArgumentError("must be true or false")
    return value


def _anchor_fault(level: Any, length: int) -> str | None:
    """Return what is wrong with the anchors of one level."""
    if not isinstance(level, tuple) or not level or len(level) % 2 or len(level) > 2 * MAX_ANCHORS:
        return f"the anchors of a level are 1 to {MAX_ANCHORS} pairs of numbers (width, height)"
    if len(level) != length:
        return f"{len(level)} numbers here, {length} on the first level; every level needs as many anchors"
    for value in level:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 100_000:
            return f"an anchor is a size in pixels over 0, not {shorten(value)}"
    return None


def _unknown(name: object) -> str:
    """Return why a module name is refused, with the nearest word."""
    if not isinstance(name, str):
        return "the module must be a name"
    if name in REFUSED:
        return f"{name} cannot be a row: {REFUSED[name]}"
    shown = shorten(name)
    if name in ACTIVATIONS:
        return f"{shown} is no row; activations are named by the key activation"
    close = difflib.get_close_matches(shown, WORDS, 1)
    hint = f"; did you mean {close[0]}?" if close else f" (one of {', '.join(WORDS)})"
    return f"unknown module {shown!r}{hint}"
