"""The figures of the fault tests, printed as one table when all is done."""

from __future__ import annotations

import pytest

from tests.support import figures


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was recorded."""
    found = figures.recorded()
    if found:
        terminalreporter.section("figures")
        for line in figures.table(found):
            terminalreporter.write_line(line)
