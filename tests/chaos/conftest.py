"""Fault tests run on either database; their figures are printed as one table when all is done."""

from __future__ import annotations

import uuid

import pytest

from tests.support import figures
from tests.support.postgres import PostgresServer


@pytest.fixture(params=["SQLite", pytest.param("PostgreSQL", marks=pytest.mark.slow)])
def book_url(request: pytest.FixtureRequest) -> str | None:
    """The address of an empty PostgreSQL, or None for the SQLite of the data folder."""
    if request.param == "SQLite":
        return None
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database(f"chaos_{uuid.uuid4().hex}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was recorded."""
    found = figures.recorded()
    if found:
        terminalreporter.section("figures")
        for line in figures.table(found):
            terminalreporter.write_line(line)
