"""What holds for every test: property tests are judged by their result, not by the machine's load."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from tests.support.postgres import postgres, postgres_url
from tests.support.stores import books_in, count_by_kind, kinds

__all__ = ["books_in", "postgres", "postgres_url"]

settings.register_profile("trainshed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("trainshed")

# A long form that hangs is ended too, but not at the limit of those that may take 30 seconds.
_SLOW_S = 900


def pytest_report_header() -> str:
    """Name the databases that tests of API and worker are run on."""
    return f"books: {', '.join(kinds())}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many tests passed on each kind of database, where they are run on more than one."""
    passed = count_by_kind(report.nodeid for report in terminalreporter.stats.get("passed", ()))
    if passed and len(kinds()) > 1:
        told = ", ".join(f"{count} on {kind}" for kind, count in sorted(passed.items()))
        terminalreporter.write_line(f"books: passed {told}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give slow tests without a limit of their own more time."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(_SLOW_S))
