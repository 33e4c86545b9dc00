"""Which databases the books of tests lie in: SQLite in a test's folder, PostgreSQL, or either in turn.

A test that makes a book asks for the fixture `books_in`, directly or by one of the fixtures that make a
book; those of API and worker are run once for each of `kinds`. PostgreSQL is one server for the whole run;
each book is a database of its own, copied from a migrated one or used before and emptied.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from api.domain import tables
from api.domain.store import migrate, newest_revision
from tests.support.postgres import PostgresServer, is_installed, make_server
from tests.support.shared import required

SQLITE, POSTGRESQL = "sqlite", "postgresql"
_VARIABLE = "TRAINSHED_TEST_STORE"
_TEMPLATE = "migrated"
_IN_ID = re.compile(rf"[\[-]({SQLITE}|{POSTGRESQL})[\]-]")
_numbers = itertools.count()
# Names of databases that no test uses now.
_free: list[str] = []
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


def count_by_kind(node_ids: Iterable[str]) -> Counter[str]:
    """Count the tests that were made for a kind of database by its name among their parameters."""
    found = (_IN_ID.search(node_id) for node_id in node_ids)
    return Counter(match[1] for match in found if match)


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
    server = _server()
    if _free and folder is None:
        name = _free.pop()
    else:
        name = _new_name()
        server.new_database(name, template=_TEMPLATE, folder=folder)
    try:
        yield {"database_url": server.url(name)}
    finally:
        if folder is None:
            _free.append(_emptied(server, name))
        else:
            server.drop_database(name)


def _emptied(server: PostgresServer, name: str) -> str:
    """Empty a database and return the name it has now."""
    new_name = _new_name()
    rows = [f"DELETE FROM {table.name}" for table in reversed(tables.metadata.sorted_tables)]
    revision = f"UPDATE alembic_version SET version_num = '{newest_revision()}'"
    server.recycle(name, new_name, [*rows, revision])
    return new_name


def _new_name() -> str:
    return f"book_{next(_numbers)}"
