"""An outline held as plain numbers: sixteen bytes a point, where tuples of Python floats take a hundred.

A dataset may have millions of points. It knows nothing of images or manifests.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, overload

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

MIN_POINTS = 3
Point = tuple[float, float]


class Outline(Sequence[Point]):
    """Three or more points (x, y), normalised; reads like a list of pairs and is equal to one."""

    __slots__ = ("_numbers",)

    def __init__(self, points: Iterable[Iterable[float]]) -> None:
        self._numbers = array("d", chain.from_iterable(points))
        assert len(self._numbers) % 2 == 0

    def __len__(self) -> int:
        return len(self._numbers) // 2

    @overload
    def __getitem__(self, index: int) -> Point: ...

    @overload
    def __getitem__(self, index: slice) -> list[Point]: ...

    def __getitem__(self, index: int | slice) -> Point | list[Point]:
        return list(self)[index] if isinstance(index, slice) else self._point(index)

    def __iter__(self) -> Iterator[Point]:
        numbers = iter(self._numbers)
        return zip(numbers, numbers, strict=True)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Outline):
            return self._numbers == other._numbers
        if isinstance(other, list | tuple):
            return list(self) == [tuple(point) for point in other]
        return NotImplemented

    def __repr__(self) -> str:
        return f"Outline({list(self)!r})"

    def _point(self, index: int) -> Point:
        at = range(0, len(self._numbers), 2)[index]
        return self._numbers[at], self._numbers[at + 1]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate as a list of pairs of fractions, keep as numbers, write as a list of pairs."""
        fraction = core_schema.float_schema(ge=0, le=1, allow_inf_nan=False)
        points = core_schema.list_schema(
            core_schema.tuple_schema([fraction, fraction]), min_length=MIN_POINTS, strict=False
        )
        return core_schema.no_info_before_validator_function(
            _as_list,
            core_schema.no_info_after_validator_function(cls, points),
            serialization=core_schema.plain_serializer_function_ser_schema(list),
        )


def _as_list(value: object) -> object:
    return list(value) if isinstance(value, Outline) else value
