"""Counts golden cases and holds the suite to `expected.toml`.

Knows nothing of kinds; what a case means is the business of its test file, what the count means that of
`tally`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Generator

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
from tests.fidelity.tally import Key, Tally, judge
from tests.support.shared import golden_dir

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


def expectation() -> dict[str, int] | None:
    """Return what the default golden folder must reach, None for another folder."""
    folder = golden_folder()
    if folder is None or folder.resolve() != default_golden_folder().resolve():
        return None
    return tomllib.loads((HERE / "expected.toml").read_text())


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a session that ran every golden case and falls behind what was reached."""
    tally, total = tally_of(session.config), all_cases()
    if total and tally.outcomes and tally.selected >= {(case.kind, case.name) for case in total}:
        coded = {case.kind for case in total if has_code(case.kind)}
        tally.verdicts = judge(tally, coded, expectation())
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
