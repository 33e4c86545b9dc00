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


def messages(lines: Iterable[str]) -> Iterator[Message]:
    """Yield the messages of a stream of lines without their ends.

    Comments and unknown fields are skipped; a message that is cut off by the end of the stream is dropped, as
    the standard asks.
    """
    event, data = "", list[str]()
    own_id: str | None = None
    for line in lines:
        if not line:
            if data:
                yield Message(event or "message", "\n".join(data), own_id)
            event, data, own_id = "", [], None
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            event = value
        elif name == "data":
            data.append(value)
        elif name == "id" and "\0" not in value:
            own_id = value
