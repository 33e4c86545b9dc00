"""The form that a check of a GPU fills in, as Markdown to read and to send back. Pure: values in, text out.

A section that could not be measured says so and why; it never hides and never stops the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

NOT_MEASURED = "not measured"
_MAX_REASON = 300


@dataclass(frozen=True)
class Section:
    """A heading, a table of texts, and remarks below it; without rows the remarks say why."""

    title: str
    columns: tuple[str, ...] = ()
    rows: Sequence[Sequence[str]] = ()
    remarks: Sequence[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return the section as Markdown."""
        found = [f"## {self.title}", ""]
        if self.rows:
            table = [self.columns, ["---"] * len(self.columns), *self.rows]
            found += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table]
            found.append("")
        found += [f"- {remark}" for remark in self.remarks]
        return [*found, ""] if self.remarks else found


def absent(title: str, reason: str) -> Section:
    """Return the section of what could not be measured."""
    return Section(title, remarks=[f"{NOT_MEASURED}: {reason}"])


def attempted(title: str, measure: Callable[[], Section]) -> Section:
    """Return what `measure` finds, or the section that says which error kept it from finding anything."""
    try:
        return measure()
    except Exception as error:  # noqa: BLE001 - whatever fails there is a finding, and the rest goes on
        return absent(title, reason_of(error))


def reason_of(error: BaseException) -> str:
    """Return an error's name and its first words on one line."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}"[:_MAX_REASON].removesuffix(": ")


def form(sections: Sequence[Section], *, device: str, quick: bool) -> str:
    """Return the whole form."""
    size = "small sizes: it shows that the check works, its figures say nothing" if quick else "full size"
    head = ["# What training does on this device", "", f"`{device}`, {size}.", ""]
    return "\n".join(head + [line for section in sections for line in section.lines()]).rstrip() + "\n"


def number(value: float | None, digits: int = 4) -> str:
    """Return a number with so many significant digits, a word where it is missing or not finite."""
    if value is None:
        return NOT_MEASURED
    return f"{value:.{digits}g}" if math.isfinite(value) else "not finite"


def mebibytes(size: int | None) -> str:
    """Return a size in MiB."""
    return NOT_MEASURED if size is None else f"{size / 2**20:.0f} MiB"


def largest_difference(values: Sequence[float], wanted: Sequence[float]) -> float:
    """Return the largest difference relative to `wanted`; NaN where one of either is not finite."""
    pairs = list(zip(values, wanted, strict=True))
    if not all(math.isfinite(number) for pair in pairs for number in pair):
        return math.nan
    return max((abs(a - b) / max(abs(b), 1e-12) for a, b in pairs), default=math.nan)
