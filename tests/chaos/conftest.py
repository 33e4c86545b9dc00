"""Fault tests run on either database; their figures are printed as one table when all is done."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from tests.support import figures
from tests.support.postgres import PostgresServer

EITHER = ["SQLite", pytest.param("PostgreSQL", marks=pytest.mark.slow)]
NewBook = Callable[[], str | None]


@pytest.fixture(params=EITHER, scope="module")
def new_book(request: pytest.FixtureRequest) -> NewBook:
    """Makes the address of an empty PostgreSQL, a new one each time; None is the SQLite of a folder."""
    if request.param == "SQLite":
        return lambda: None
    server: PostgresServer = request.getfixturevalue("postgres")
    return lambda: server.new_database(f"chaos_{uuid.uuid4().hex}")


@pytest.fixture
def book_url(new_book: NewBook) -> str | None:
    """The address of a book of the test's own."""
    return new_book()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was recorded."""
    found = figures.recorded()
    if found:
        terminalreporter.section("figures")
        for line in figures.table(found):
            terminalreporter.write_line(line)
