"""What a session's outcomes say about fidelity; pure, so that it can be tested itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Key = tuple[str, str]


@dataclass
class Tally:
    """Outcomes of the golden cases seen in this session, by (kind, name)."""

    selected: set[Key] = field(default_factory=set)
    outcomes: dict[Key, set[str]] = field(default_factory=dict)
    verdicts: list[str] = field(default_factory=list)

    def passed(self) -> set[Key]:
        """Cases with a passing test and no failing one."""
        return {key for key, seen in self.outcomes.items() if "passed" in seen and "failed" not in seen}

    def skipped(self) -> set[Key]:
        """Cases of which every test was skipped."""
        return {key for key, seen in self.outcomes.items() if seen == {"skipped"}}


def judge(tally: Tally, coded_kinds: Iterable[str], expected: Mapping[str, int] | None) -> list[str]:
    """Return why a complete run of the suite is not good enough.

    `coded_kinds` are the kinds with a test file; `expected` is given for the default folder only.
    """
    barren = sorted(set(coded_kinds) - {kind for kind, _ in tally.passed()})
    verdicts = [f"kind {kind}: has code but no passing case" for kind in barren]
    if expected is not None:
        passed, skipped = len(tally.passed()), len(tally.skipped())
        if passed < expected["passed"]:
            verdicts.append(f"passed fell from {expected['passed']} to {passed}")
        if skipped > expected["skipped"]:
            verdicts.append(f"skipped rose from {expected['skipped']} to {skipped}")
    return verdicts
