"""The table of figures as text for a terminal and as the README of this folder. Pure: values in, text out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.stats import Curve, Figure, Point

COLUMNS = ("figure", "measured", "bound", "verdict", "how")
CURVE_COLUMNS = ("cost", "of", "points", "power", "how")

_GROWTH = """
## How cost grows with work

The power is that of the work with which the cost grew between the two largest points measured: 1 is in
proportion, 0 is not at all, 2 is with the square. Points marked "extrapolated" would have taken over a minute
and lie on the line through the last two measured.

{table}
"""

_README = """# Figures

Written by `python -m benchmarks.run`; do not edit. MB are 10^6 bytes, GiB 2^30.

{table}
{growth}
## Where and when

{facts}

## How to repeat

    make bench                              # all of it, and this file is written anew
    .venv/bin/python -m benchmarks.run --quick           # small sizes, nothing is written
    .venv/bin/python -m benchmarks.run training loader   # some of it, nothing is written
    .venv/bin/python -m benchmarks.run --update loader   # some of it, and its rows are written anew

Training is measured on BCCD where `bccd_yolo.zip` lies in the folder that TRAINSHED_DATASETS names, or else
on made scenes; each figure says on which. "The textbook" is `benchmarks/baselines/`: the same mathematics the
usual way, held equal to ours by tests. A ratio says how many times less ours costs, in processor seconds of
one thread unless it says otherwise.

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


def curve_cells(curve: Curve) -> tuple[str, ...]:
    """Return a curve's cells in the order of its columns."""
    points = "; ".join(_shown(point, curve.cost_unit) for point in curve.points)
    power = "" if math.isnan(curve.exponent) else f"{curve.exponent:.2f}"
    return curve.name, curve.work_unit, points, power, curve.how


def _shown(point: Point, unit: str) -> str:
    mark = "" if point.measured else " (extrapolated)"
    cost = f"{point.cost:,.0f}" if point.cost >= 100 else f"{point.cost:.3g}"
    return f"{point.work:,g}: {cost} {unit}{mark}"


def text_table(figures: Sequence[Figure]) -> str:
    """Return the table in aligned columns."""
    return _aligned([COLUMNS, *(cells(figure) for figure in figures)])


def text_curves(curves: Sequence[Curve]) -> str:
    """Return the curves in aligned columns."""
    return _aligned([CURVE_COLUMNS, *(curve_cells(curve) for curve in curves)])


def markdown_table(figures: Sequence[Figure]) -> str:
    """Return the table as Markdown."""
    return _markdown([COLUMNS, *(cells(figure) for figure in figures)])


def markdown_curves(curves: Sequence[Curve]) -> str:
    """Return the curves as Markdown."""
    return _markdown([CURVE_COLUMNS, *(curve_cells(curve) for curve in curves)])


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def _markdown(rows: Sequence[tuple[str, ...]]) -> str:
    header, *rest = rows
    lines = [header, tuple("---" for _ in header), *rest]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)


def readme(
    figures: Sequence[Figure], setting: Setting, names: Sequence[str], curves: Sequence[Curve] = ()
) -> str:
    """Return the text of this folder's README."""
    facts = "\n".join(f"- {line}" for line in setting.lines())
    growth = _GROWTH.format(table=markdown_curves(curves)) if curves else ""
    return _README.format(table=markdown_table(figures), growth=growth, facts=facts, names=", ".join(names))


def updated(text: str, figures: Sequence[Figure], setting: Setting, names: Sequence[str]) -> str:
    """Return the README with the rows of these figures anew, and a fact that says when and which.

    A figure without a row gets one behind that of the figure before it. Raises KeyError, with its name, for
    the first one without a row.
    """
    lines, before = text.split("\n"), -1
    for figure in figures:
        row = _markdown([COLUMNS, cells(figure)]).split("\n")[-1]
        start = row.split(" | ")[0] + " | "
        places = [number for number, line in enumerate(lines) if line.startswith(start)]
        if places:
            before = places[0]
            lines[before] = row
        elif before < 0:
            raise KeyError(figure.name)
        else:
            before += 1
            lines.insert(before, row)
    anew = f"- measured anew: {', '.join(names)}: "
    lines = [line for line in lines if not line.startswith(anew)]
    facts = [
        number for number, line in enumerate(lines) if line.startswith(("- load: ", "- measured anew: "))
    ]
    when = f"{setting.date}, revision {setting.revision}, load {setting.load_before:.1f} before"
    lines.insert(facts[-1] + 1, f"{anew}{when}, {setting.load_after:.1f} after")
    return "\n".join(lines)
