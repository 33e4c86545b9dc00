"""Read the event journal a child writes, while it writes it: whole lines only, by sequence number.

Two readers share one journal at their own pace (SQL rows, event stream), and each may go back: what was
lost on the way is read again from here. It must not know what the events mean nor where they go.
"""

from __future__ import annotations

import json
import threading
from array import array
from pathlib import Path
from typing import Any

_CHUNK_BYTES = 1 << 20


class DamagedJournalError(Exception):
    """A complete line of a journal is not the event it should be."""


class Journal:
    """The lines of `events.jsonl`, indexed by seq (from 1, without gaps) as they become complete."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        # _ends[n] is where line n ends and line n + 1 begins; eight bytes an event.
        self._ends = array("q", [0])
        self._scanned = 0

    def num_lines(self) -> int:
        """Look at what was added and return the seq of the last complete line, 0 if there is none."""
        with self._lock:
            self._scan()
            return len(self._ends) - 1

    def read(self, first_seq: int, *, max_lines: int = 200) -> list[dict[str, Any]]:
        """Return the events from `first_seq` on as flat objects with `seq` and `ts`.

        Raise DamagedJournalError if a complete line is no JSON object or carries another seq.
        """
        with self._lock:
            self._scan()
            last = min(len(self._ends) - 1, first_seq + max_lines - 1)
            if first_seq > last:
                return []
            start, end = self._ends[first_seq - 1], self._ends[last]
        with self._path.open("rb") as file:
            file.seek(start)
            lines = file.read(end - start).split(b"\n")[:-1]
        return [_decode(line, first_seq + offset) for offset, line in enumerate(lines)]

    def _scan(self) -> None:
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return
        with file:
            file.seek(self._scanned)
            while data := file.read(_CHUNK_BYTES):
                at = data.find(b"\n")
                while at >= 0:
                    self._ends.append(self._scanned + at + 1)
                    at = data.find(b"\n", at + 1)
                self._scanned += len(data)


def _decode(line: bytes, seq: int) -> dict[str, Any]:
    try:
        event = json.loads(line, parse_constant=_refuse)
    except ValueError as error:
        raise DamagedJournalError(f"line {seq} is not JSON") from error
    if not isinstance(event, dict) or event.get("seq") != seq or not isinstance(event.get("type"), str):
        raise DamagedJournalError(f"line {seq} is not event {seq}")
    return event


def _refuse(constant: str) -> None:
    """NaN and infinity are no JSON, and no browser would read them."""
    raise ValueError(constant)
