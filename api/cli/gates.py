"""What a run must reach: requirements on its figures, and comparisons with an earlier job.

Figures are those of the best epoch, whose weights are the result. It knows names and numbers, and nothing of
files or of the service.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

EXIT_MISSED = 3
SHARES = ("map50", "map50_95", "precision", "recall", "fitness")
LOSSES = tuple(f"{split}_{part}" for split in ("train", "val") for part in ("box", "obj", "cls"))
METRICS = SHARES + LOSSES
DEFAULT_METRIC = "fitness"

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
_NUMBER = r"[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?"
_REQUIREMENT = re.compile(rf"\s*([^<>=\s]+)\s*(>=|<=|==|>|<)\s*([-+]?{_NUMBER})\s*")
_AFTER_METRIC = re.compile(rf"({'|'.join(METRICS)})(?:-({_NUMBER}))?")
# Without a metric only a decimal fraction is a tolerance: `release-2` is a label.
_FRACTION = re.compile(r"(.+?)-([0-9]*\.[0-9]+)")


class GateError(ValueError):
    """A requirement that cannot be understood; the text is for a person."""


@dataclass(frozen=True)
class Requirement:
    """A figure that must stand to a number in a relation."""

    metric: str
    relation: str
    bound: float

    def __str__(self) -> str:
        return f"{self.metric} {self.relation} {self.bound:g}"


@dataclass(frozen=True)
class NoWorse:
    """A figure that may fall behind that of another job (an id, a tag or a name) by a tolerance at most."""

    other: str
    metric: str = DEFAULT_METRIC
    tolerance: float = 0.0

    def __str__(self) -> str:
        less = f" - {self.tolerance:g}" if self.tolerance else ""
        return f"{self.metric} no worse than {self.other}{less}"


@dataclass(frozen=True)
class Verdict:
    """What became of a gate; `passed` is None where it could not be judged, and `note` says why."""

    gate: str
    metric: str
    relation: str
    bound: float | None
    found: float | None
    passed: bool | None
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the fields, for a summary."""
        return dict(self.__dict__)

    def __str__(self) -> str:
        word = {True: "passed", False: "MISSED", None: "not judged"}[self.passed]
        found = "" if self.found is None else f": {self.metric} is {self.found:.6g}"
        bound = "" if self.bound is None or not self.note else f", bound {self.bound:.6g}"
        return f"{word}  {self.gate}{found}{bound}{f' ({self.note})' if self.note else ''}"


def parse_requirement(text: str) -> Requirement:
    """Read `map50>=0.70`; raises GateError."""
    match = _REQUIREMENT.fullmatch(text)
    if match is None:
        raise GateError(
            f"write a figure, one of >= > <= < == and a number, such as map50>=0.70, not {text!r}"
        )
    metric, relation, bound = match[1], match[2], float(match[3])
    if metric not in METRICS:
        raise GateError(_no_metric(metric))
    if not math.isfinite(bound):
        raise GateError(f"{match[3]} is no number that a figure could reach")
    if metric in SHARES and not 0 <= bound <= 1:
        raise GateError(f"{metric} is between 0 and 1, {bound:g} is not")
    return Requirement(metric, relation, bound)


def parse_no_worse(text: str) -> NoWorse:
    """Read `JOB-or-label[:metric][-tolerance]`; raises GateError.

    What stands after the last colon is a metric if one is called so; else it belongs to the label.
    """
    text = text.strip()
    head, colon, tail = text.rpartition(":")
    if colon and (match := _AFTER_METRIC.fullmatch(tail)):
        if not head:
            raise GateError(f"name a job or a label before the colon of {text!r}")
        return NoWorse(head, match[1], float(match[2] or 0))
    if match := _FRACTION.fullmatch(text):
        return NoWorse(match[1], DEFAULT_METRIC, float(match[2]))
    if not text:
        raise GateError("name a job or a label")
    return NoWorse(text)


def _no_metric(name: str) -> str:
    near = difflib.get_close_matches(name.lower(), METRICS, n=1)
    meant = f" (is {near[0]!r} meant?)" if near else ""
    return f"no figure is called {name!r}{meant}; there are: {', '.join(METRICS)}"


def figures_of(best: Mapping[str, Any] | None, rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the figures of the best epoch by the names of METRICS, those that were measured and are finite.

    `best` is what a job shows as its best, `rows` its epochs, which have the losses too.
    """
    if not best:
        return {}
    row = next((row for row in rows if row.get("epoch") == best.get("epoch")), {})
    found = {name: best.get(name, row.get(name)) for name in SHARES}
    for split in ("train", "val"):
        parts = row.get(split) or {}
        found |= {f"{split}_{part}": value for part, value in parts.items()}
    return {name: float(value) for name, value in found.items() if name in METRICS and _is_number(value)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def judge(gate: Requirement, figures: Mapping[str, float]) -> Verdict:
    """Compare a figure with a number; a figure that was not measured has missed it."""
    return _compare(str(gate), gate.metric, gate.relation, gate.bound, figures, "")


def judge_no_worse(
    gate: NoWorse, figures: Mapping[str, float], other: Mapping[str, float] | None, job_id: str | None
) -> Verdict:
    """Compare with the figures of another job; without one (None) nothing is judged.

    Losses are the better the smaller they are, all else the better the larger.
    """
    is_loss = gate.metric in LOSSES
    relation = "<=" if is_loss else ">="
    if other is None:
        note = f"no other job of {gate.other!r} has succeeded yet"
        return Verdict(str(gate), gate.metric, relation, None, figures.get(gate.metric), None, note)
    if gate.metric not in other:
        note = f"{job_id} has no {gate.metric}"
        return Verdict(str(gate), gate.metric, relation, None, figures.get(gate.metric), False, note)
    bound = other[gate.metric] + (gate.tolerance if is_loss else -gate.tolerance)
    note = f"{job_id} has {other[gate.metric]:.6g}"
    return _compare(str(gate), gate.metric, relation, bound, figures, note)


def _compare(
    gate: str, metric: str, relation: str, bound: float, figures: Mapping[str, float], note: str
) -> Verdict:
    found = figures.get(metric)
    if found is None:
        missing = f"{metric} was not measured"
        return Verdict(gate, metric, relation, bound, None, False, f"{note}; {missing}" if note else missing)
    return Verdict(gate, metric, relation, bound, found, OPERATORS[relation](found, bound), note)


def not_judged(gate: Requirement | NoWorse, note: str) -> Verdict:
    """Return the verdict on a gate of a job without a result."""
    relation = gate.relation if isinstance(gate, Requirement) else ""
    bound = gate.bound if isinstance(gate, Requirement) else None
    return Verdict(str(gate), gate.metric, relation, bound, None, None, note)
