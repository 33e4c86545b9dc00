"""One message of an event stream, in the bytes it has on the wire, made once for all who send it.

It must not know where messages come from or to whom they go.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


class Frame:
    """One message: `data` is one-line JSON or a snapshot; only events of the run carry an id."""

    __slots__ = ("_wire", "data", "event", "id")

    def __init__(self, event: str, data: str | Mapping[str, Any] | None, id: str | None = None) -> None:  # noqa: A002
        self.event = event
        self.data = data
        self.id = id
        self._wire: bytes | None = None

    @property
    def wire(self) -> bytes:
        """The bytes, with the empty line at their end."""
        if self._wire is None:
            self._wire = self._encoded()
        return self._wire

    def _encoded(self) -> bytes:
        data = self.data if isinstance(self.data, str) else _one_line(self.data)
        lines = [f"event: {self.event}", f"data: {data}"]
        if self.id is not None:
            lines.append(f"id: {self.id}")
        return ("\n".join(lines) + "\n\n").encode()


class _Ping(Frame):
    """A comment, which readers pass over."""

    __slots__ = ()

    def _encoded(self) -> bytes:
        return b": ping\n\n"


PING: Frame = _Ping("ping", None)


def _one_line(value: Mapping[str, Any] | None) -> str:
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except ValueError:
        # JSON cannot say NaN and infinity, and no browser would read them.
        finite = json.loads(json.dumps(value), parse_constant=lambda _: None)
        return json.dumps(finite, separators=(",", ":"), ensure_ascii=False)
