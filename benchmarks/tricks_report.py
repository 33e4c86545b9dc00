"""The figures of the tricks as Markdown, and their places in a page. Pure: values in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median

from benchmarks.stats import pair_ratios, spread

_SHOWN = {"ms": 1000.0, "MB": 1e-6, "": 1.0}


@dataclass(frozen=True)
class Compared:
    """One trick measured on and off, pair by pair: seconds for `ms`, bytes for `MB`, else bare numbers.

    `on` and `off` say in words what was done, `what` one value is.
    """

    trick: str
    on: str
    off: str
    what: str
    on_values: Sequence[float]
    off_values: Sequence[float]
    unit: str = "ms"

    def cells(self) -> tuple[str, ...]:
        """Return the cells of its row."""
        ratios = pair_ratios(self.on_values, self.off_values)
        ratio = f"{median(ratios):.2f}"
        if min(ratios) != max(ratios):
            ratio += f" ({spread(ratios)})"
        return (
            self.trick,
            f"{self.on}: {self._value(self.on_values)}",
            f"{self.off}: {self._value(self.off_values)}",
            ratio,
            self.what,
        )

    def _value(self, values: Sequence[float]) -> str:
        value = median(values) * _SHOWN[self.unit]
        digits = 0 if value >= 100 or not self.unit else 1 if value >= 10 else 2
        return f"{value:.{digits}f} {self.unit}".strip()


@dataclass(frozen=True)
class Outcome:
    """Scores (mAP50, mAP50-95) by seed of short trainings that differ from the base in one trick."""

    trick: str
    changed: str
    by_seed: Mapping[int, tuple[float, float]]


def times_table(found: Sequence[Compared]) -> str:
    """Return the table of what was measured on and off."""
    header = ("trick", "on", "off", "on / off, median of pairs", "one value is")
    return table(header, [one.cells() for one in found])


def accuracy_table(outcomes: Sequence[Outcome]) -> str:
    """Return the table of short trainings; the first one is the base that the others are compared with.

    A difference is the mean of those seed by seed; what has no score is left out.
    """
    base = outcomes[0].by_seed
    rows = []
    for outcome in outcomes:
        seeds = sorted(set(outcome.by_seed) & set(base))
        if not seeds:
            continue
        means = [mean(outcome.by_seed[seed][column] for seed in seeds) for column in (0, 1)]
        change = _range([outcome.by_seed[seed][0] for seed in seeds], ".3f")
        if outcome is not outcomes[0]:
            change = _range([outcome.by_seed[seed][0] - base[seed][0] for seed in seeds], "+.3f")
        rows.append(
            (outcome.trick, outcome.changed, *(f"{one:.3f}" for one in means), change, str(len(seeds)))
        )
    return table(("trick", "run", "mAP50", "mAP50-95", "mAP50 less the base's, by seed", "seeds"), rows)


def _range(values: Sequence[float], form: str) -> str:
    ends = sorted({format(min(values), form), format(max(values), form)}, key=float)
    return " to ".join(ends)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)


def placed(page: str, block: str, text: str) -> str:
    """Return the page with a block's text in place of what stood there; ValueError without the markers."""
    begin, end = f"<!-- figures: {block} -->", f"<!-- end of figures: {block} -->"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the page has no place for the figures {block}")
    return f"{before}{begin}\n{text}\n{end}{after}"
