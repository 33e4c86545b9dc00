"""Which databases the books of tests lie in: SQLite in a test's folder, PostgreSQL, or either in turn.

A test that makes a book asks for the fixture `books_in`, directly or by one of the fixtures that make a
book; those of API and worker are run once for each of `kinds`. PostgreSQL is one server for the whole run;
each book is a database of its own, copied from a migrated one.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from api.domain.store import migrate
from tests.support.postgres import PostgresServer, is_installed, make_server
from tests.support.shared import required

SQLITE, POSTGRESQL = "sqlite", "postgresql"
_VARIABLE = "TRAINSHED_TEST_STORE"
_TEMPLATE = "migrated"
_numbers = itertools.count()
# Where the book of the running test lies; None outside of the fixture.
_kind: str | None = None


def kinds() -> list[str]:
    """Return the databases that TRAINSHED_TEST_STORE names: `sqlite` (without it), `postgresql` or `both`.

    Of both, PostgreSQL is left out where it is neither installed nor required.
    """
    name = os.environ.get(_VARIABLE, SQLITE)
    assert name in (SQLITE, POSTGRESQL, "both"), f"{_VARIABLE}={name}"
    if name != "both":
        return [name]
    return [SQLITE, POSTGRESQL] if is_installed() or required("postgres") else [SQLITE]


def in_each_store(metafunc: pytest.Metafunc) -> None:
    """Run a test that makes a book once for each kind of database; for `pytest_generate_tests`."""
    if "books_in" in metafunc.fixturenames and len(kinds()) > 1:
        metafunc.parametrize("books_in", kinds(), indirect=True, scope="module")


@pytest.fixture(scope="module")
def books_in(request: pytest.FixtureRequest) -> Iterator[str]:
    """The kind of database that books made meanwhile lie in."""
    global _kind
    _kind = getattr(request, "param", kinds()[0])
    yield _kind
    _kind = None


@lru_cache(maxsize=1)
def _server() -> PostgresServer:
    server = make_server()
    atexit.register(server.close)
    server.start()
    migrate(server.new_database(_TEMPLATE))
    return server


@contextlib.contextmanager
def own_database(folder: Path | None = None) -> Iterator[dict[str, Any]]:
    """Yield the settings that name a new, migrated database; none where SQLite in the data folder will do.

    PostgreSQL keeps it in `folder`, where one is given.
    """
    assert _kind is not None, "a test that makes a book asks for the fixture books_in"
    if _kind == SQLITE:
        yield {}
        return
    server, name = _server(), f"book_{next(_numbers)}"
    try:
        yield {"database_url": server.new_database(name, template=_TEMPLATE, folder=folder)}
    finally:
        server.drop_database(name)
