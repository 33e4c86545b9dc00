"""Counts golden cases and holds the suite to `expected.toml`.

A case passes if all its tests pass, and counts as skipped if every one of them is skipped. Knows nothing of
kinds; what a case means is the business of its test file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Generator
from dataclasses import dataclass, field

import pytest

from tests.fidelity.harness import (
    ABSENT,
    HERE,
    Case,
    all_cases,
    default_golden_folder,
    golden_folder,
    has_code,
)
from tests.support.shared import golden_dir

Key = tuple[str, str]


@dataclass
class Tally:
    """Outcomes of the golden cases seen in this session."""

    selected: set[Key] = field(default_factory=set)
    outcomes: dict[Key, set[str]] = field(default_factory=dict)
    verdicts: list[str] = field(default_factory=list)

    def passed(self) -> set[Key]:
        """Cases with a passing test and no failing one."""
        return {key for key, seen in self.outcomes.items() if "passed" in seen and "failed" not in seen}

    def skipped(self) -> set[Key]:
        """Cases of which every test was skipped."""
        return {key for key, seen in self.outcomes.items() if seen == {"skipped"}}


TALLY = pytest.StashKey[Tally]()


def tally_of(config: pytest.Config) -> Tally:
    """Return the session's tally."""
    return config.stash.setdefault(TALLY, Tally())


def key_of(item: pytest.Item) -> Key | None:
    """Return the golden case a test is about."""
    callspec = getattr(item, "callspec", None)
    case = callspec.params.get("case") if callspec is not None else None
    return (case.kind, case.name) if isinstance(case, Case) and case.name != ABSENT else None


@pytest.fixture(autouse=True)
def golden() -> None:
    """Skip, or fail where it is required, a test that has no golden folder to speak of."""
    golden_dir()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Remember which cases this session will try."""
    tally_of(config).selected.update(key for key in map(key_of, items) if key)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note the outcome of each case."""
    report = yield
    key = key_of(item)
    if key and (report.when == "call" or report.outcome != "passed"):
        tally_of(item.config).outcomes.setdefault(key, set()).add(report.outcome)
    return report


def barren_kinds(tally: Tally, total: list[Case]) -> list[str]:
    """Return the kinds that have a test file, of which every case was tried and none passed."""
    passed = {kind for kind, _ in tally.passed()}
    return sorted({case.kind for case in total if has_code(case.kind)} - passed)


def judge(tally: Tally, total: list[Case]) -> list[str]:
    """Return why a complete run of the suite is not good enough."""
    verdicts = [f"kind {kind}: has code but no passing case" for kind in barren_kinds(tally, total)]
    folder = golden_folder()
    if folder is not None and folder.resolve() == default_golden_folder().resolve():
        expected = tomllib.loads((HERE / "expected.toml").read_text())
        passed, skipped = len(tally.passed()), len(tally.skipped())
        if passed < expected["passed"]:
            verdicts.append(f"passed fell from {expected['passed']} to {passed}")
        if skipped > expected["skipped"]:
            verdicts.append(f"skipped rose from {expected['skipped']} to {skipped}")
    return verdicts


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a session that ran every golden case and falls behind what was reached."""
    tally, total = tally_of(session.config), all_cases()
    if total and tally.outcomes and tally.selected >= {(case.kind, case.name) for case in total}:
        tally.verdicts = judge(tally, total)
        if tally.verdicts and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Generator[None, None, None]:
    """Print the line that tells how far the suite reaches, below everything else."""
    yield
    tally, total = tally_of(config), all_cases()
    if not tally.outcomes:
        return
    partial = "" if tally.selected >= {(case.kind, case.name) for case in total} else " (a part of the suite)"
    terminalreporter.write_line(
        f"fidelity: passed {len(tally.passed())}, skipped {len(tally.skipped())} of {len(total)}{partial}"
    )
    for verdict in tally.verdicts:
        terminalreporter.write_line(f"fidelity: FAILED, {verdict}", red=True)
