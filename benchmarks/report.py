"""The table of figures as text for a terminal and as the README of this folder. Pure: values in, text out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.stats import Figure

COLUMNS = ("figure", "measured", "bound", "verdict", "how")

_README = """# Figures

Written by `python -m benchmarks.run`; do not edit. MB are 10^6 bytes, GiB 2^30.

{table}

## Where and when

{facts}

## How to repeat

    make bench                              # all of it, and this file is written anew
    .venv/bin/python -m benchmarks.run --quick           # small sizes, nothing is written
    .venv/bin/python -m benchmarks.run import upload     # some of it, nothing is written

Names: {names}. Everything runs in a temporary folder that is removed at the end, and needs about 4 GiB of it.
Figures that compare two things measure them in turn (A B A B) in the same run and give the median of the
pairs. A machine with other work on it changes every wall-clock figure: look at the load above. The bounds are
targets that are printed; no test is timed by them.
"""


@dataclass(frozen=True)
class Setting:
    """Where and when the figures were taken; `load` is the run queue's length over a minute."""

    date: str
    processor: str
    cores: int
    memory_bytes: int
    system: str
    python: str
    torch: str
    revision: str
    load_before: float
    load_after: float

    def lines(self) -> list[str]:
        """Return one line a fact."""
        return [
            f"date: {self.date}, revision {self.revision}",
            f"processor: {self.processor}, {self.cores} cores, {self.memory_bytes / 2**30:.0f} GiB of memory",
            f"software: {self.system}, Python {self.python}, torch {self.torch}",
            f"load: {self.load_before:.1f} before, {self.load_after:.1f} after (over one minute)",
        ]


def cells(figure: Figure) -> tuple[str, ...]:
    """Return a figure's cells in the order of the columns."""
    bound = figure.bound.shown if figure.bound else ""
    return figure.name, figure.shown, bound, figure.verdict, figure.how


def text_table(figures: Sequence[Figure]) -> str:
    """Return the table in aligned columns."""
    rows = [COLUMNS, *(cells(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def markdown_table(figures: Sequence[Figure]) -> str:
    """Return the table as Markdown."""
    rows = [COLUMNS, tuple("---" for _ in COLUMNS), *(cells(figure) for figure in figures)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def readme(figures: Sequence[Figure], setting: Setting, names: Sequence[str]) -> str:
    """Return the text of this folder's README."""
    facts = "\n".join(f"- {line}" for line in setting.lines())
    return _README.format(table=markdown_table(figures), facts=facts, names=", ".join(names))
