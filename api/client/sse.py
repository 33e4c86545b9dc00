"""Reads Server-Sent Events (HTML standard, section 9.2) from lines of text; it knows no network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """One message: its type, its data, and its own id (None for a message that sets none)."""

    event: str
    data: str
    id: str | None


class Reader:
    """Takes a stream line by line, without their ends.

    Comments and unknown fields are skipped; a message that is cut off by the end of the stream is dropped, as
    the standard asks.
    """

    def __init__(self) -> None:
        self._event = ""
        self._data: list[str] = []
        self._id: str | None = None

    def feed(self, line: str) -> Message | None:
        """Take a line; return the message that it ends, if it does."""
        if not line:
            return self._end()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._event = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
        return None

    def _end(self) -> Message | None:
        found = Message(self._event or "message", "\n".join(self._data), self._id) if self._data else None
        self._event, self._data, self._id = "", [], None
        return found


def messages(lines: Iterable[str]) -> Iterator[Message]:
    """Yield the messages of a stream of lines without their ends."""
    reader = Reader()
    for line in lines:
        if (found := reader.feed(line)) is not None:
            yield found
