"""Collects what is wrong with an upload, so that every dropped row or picture leaves an entry.

It bounds the report (per code and altogether) and counts what it no longer lists. It decides nothing: the
severity comes from whoever adds an entry.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "info"]

MAX_ENTRIES_PER_CODE = 100
MAX_ENTRIES = 2000
MAX_VALUE_CHARS = 120


class RefusedError(Exception):
    """The archive as a whole cannot become a dataset; the entry is already in the report."""


@dataclass
class Entry:
    """One problem; `count` over 1 stands for further occurrences that are not listed one by one."""

    code: str
    severity: Severity
    message: str
    file: str | None = None
    line: int | None = None
    value: str | None = None
    fix: str | None = None
    count: int = 1

    def as_dict(self) -> dict[str, Any]:
        """Return all fields, in the order of the report's contract."""
        return {
            "code": self.code,
            "severity": self.severity,
            "file": self.file,
            "line": self.line,
            "value": self.value,
            "message": self.message,
            "fix": self.fix,
            "count": self.count,
        }


def shown(value: object) -> str:
    """Return a value as short printable text, for a message or the `value` field."""
    text = str(value)
    clean = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: MAX_VALUE_CHARS * 2])
    return clean if len(clean) <= MAX_VALUE_CHARS else clean[: MAX_VALUE_CHARS - 3] + "..."


class Report:
    """The growing list of problems of one upload; safe to add to from several threads."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._listed: dict[str, int] = {}
        self._last: dict[str, Entry] = {}
        self._counts: dict[Severity, int] = {"error": 0, "warning": 0, "info": 0}
        self._lock = threading.Lock()
        self.truncated = False

    def add(
        self,
        severity: Severity,
        code: str,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        value: object = None,
        fix: str | None = None,
    ) -> None:
        """Add one problem; over the bounds it only raises the count of the last listed one of its code."""
        entry = Entry(
            code=code,
            severity=severity,
            message=shown(message) if len(message) <= MAX_VALUE_CHARS else message,
            file=None if file is None else shown(file),
            line=line,
            value=None if value is None else shown(value),
            fix=fix,
        )
        with self._lock:
            self._counts[severity] += 1
            listed = self._listed.get(code, 0)
            full = listed >= MAX_ENTRIES_PER_CODE or len(self._entries) >= MAX_ENTRIES
            if full and code in self._last:
                self._last[code].count += 1
                self.truncated = True
                return
            self._listed[code] = listed + 1
            self._last[code] = entry
            self._entries.append(entry)

    def refuse(self, code: str, message: str, **place: Any) -> RefusedError:
        """Add an error and return the exception to raise with it."""
        self.add("error", code, message, **place)
        return RefusedError(code)

    def count(self, severity: Severity) -> int:
        """Return how many problems of a severity were added, listed or not."""
        return self._counts[severity]

    def codes(self) -> set[str]:
        """Return the codes seen so far."""
        return set(self._listed)

    def entries(self) -> list[dict[str, Any]]:
        """Return the listed problems, errors first, else in the order they were found."""
        order = {"error": 0, "warning": 1, "info": 2}
        return [entry.as_dict() for entry in sorted(self._entries, key=lambda e: order[e.severity])]
