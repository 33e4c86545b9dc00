"""What differs between two architectures: keys, rows added, removed and changed, parameters, operations.

Rows are aligned by what they are (word, repeats, arguments), not by their number, so that one row put in does
not make all rows behind it look changed. It must not know how the difference is shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Literal

from yolocore.spec.architecture import Row
from yolocore.spec.layers import Layer, Plan

Change = Literal["same", "changed", "added", "removed"]
KEYS = (
    "nc",
    "depth_multiple",
    "width_multiple",
    "anchors",
    "activation",
    "channel_multiple",
    "ch",
    "inplace",
)


@dataclass(frozen=True)
class Detail:
    """One thing that differs, as written on either side."""

    name: str
    left: str
    right: str


@dataclass(frozen=True)
class RowChange:
    """A row of one side, or two that belong together; numbers of rows, None where there is none."""

    change: Change
    left: int | None
    right: int | None
    left_module: str | None
    right_module: str | None
    details: tuple[Detail, ...]
    left_parameters: int
    right_parameters: int


@dataclass(frozen=True)
class Comparison:
    """The difference; `keys` outside the rows, `rows` in the order of the right side."""

    keys: tuple[Detail, ...]
    rows: tuple[RowChange, ...]
    parameters_change: int
    flops_change: int
    activation_bytes_change: int

    def count(self, change: Change) -> int:
        """Return how many rows changed in this way."""
        return sum(row.change == change for row in self.rows)


def compare(left: Plan, right: Plan) -> Comparison:
    """Return what the right architecture has different from the left one."""
    pairs = list(_aligned(left.architecture.rows, right.architecture.rows))
    places = {a: b for a, b in pairs if a is not None and b is not None} | {-1: -1}
    return Comparison(
        keys=tuple(_keys(left, right)),
        rows=tuple(_change(left, right, a, b, places) for a, b in pairs),
        parameters_change=right.num_parameters - left.num_parameters,
        flops_change=right.flops - left.flops,
        activation_bytes_change=right.activation_bytes - left.activation_bytes,
    )


def _keys(left: Plan, right: Plan) -> Iterator[Detail]:
    for name in KEYS:
        a, b = (getattr(plan.architecture, name) for plan in (left, right))
        if a != b:
            yield Detail(name, _told(a), _told(b))


def _aligned(left: tuple[Row, ...], right: tuple[Row, ...]) -> Iterator[tuple[int | None, int | None]]:
    """Yield (left row, right row): equal rows by content, then among the rest by word, then by place."""
    contents = [_content(row) for row in left], [_content(row) for row in right]
    words = [row.word for row in left], [row.word for row in right]
    for tag, a0, a1, b0, b1 in SequenceMatcher(None, *contents, autojunk=False).get_opcodes():
        if tag != "replace":
            yield from _side_by_side(a0, a1, b0, b1)
            continue
        inner = SequenceMatcher(None, words[0][a0:a1], words[1][b0:b1], autojunk=False)
        for _, c0, c1, d0, d1 in inner.get_opcodes():
            yield from _side_by_side(a0 + c0, a0 + c1, b0 + d0, b0 + d1)


def _side_by_side(a0: int, a1: int, b0: int, b1: int) -> Iterator[tuple[int | None, int | None]]:
    for offset in range(max(a1 - a0, b1 - b0)):
        a, b = a0 + offset, b0 + offset
        yield (a if a < a1 else None, b if b < b1 else None)


def _content(row: Row) -> tuple[Any, ...]:
    return row.word, row.number, tuple(row.args.items())


def _change(left: Plan, right: Plan, a: int | None, b: int | None, places: dict[int, int]) -> RowChange:
    old = None if a is None else left.layers[a]
    new = None if b is None else right.layers[b]
    details: tuple[Detail, ...] = ()
    kind: Change = "added" if old is None else "removed"
    if a is not None and b is not None:
        moved = _marked(left.layers[a], places) != _marked(right.layers[b], None)
        details = tuple(_details(left.architecture.rows[a], right.architecture.rows[b], moved))
        kind = "changed" if details else "same"
    return RowChange(
        change=kind,
        left=a,
        right=b,
        left_module=old.word if old else None,
        right_module=new.word if new else None,
        details=details,
        left_parameters=old.num_parameters if old else 0,
        right_parameters=new.num_parameters if new else 0,
    )


def _marked(layer: Layer, places: dict[int, int] | None) -> list[int | str | None]:
    """Return the sources by number of the right side; the row before is the row before, whichever it is."""
    previous = layer.index - 1
    return [
        "previous" if source == previous else source if places is None else places.get(source)
        for source in layer.sources
    ]


def _details(old: Row, new: Row, moved: bool) -> Iterator[Detail]:
    if moved:
        yield Detail("from", _told(old.sources), _told(new.sources))
    if old.number != new.number:
        yield Detail("number", str(old.number), str(new.number))
    if old.word != new.word:
        yield Detail("module", old.word, new.word)
        return
    for name, value in old.args.items():
        if value != new.args[name]:
            yield Detail(name, _told(value), _told(new.args[name]))


def _told(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_told, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
