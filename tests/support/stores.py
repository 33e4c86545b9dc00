"""Which database a test's book lies in: SQLite in its folder, or PostgreSQL if TRAINSHED_TEST_STORE says so.

PostgreSQL is one server for the whole run; each book is a database of its own, copied from a migrated one.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from api.domain.store import migrate
from tests.support.postgres import PostgresServer, make_server

_TEMPLATE = "migrated"
_numbers = itertools.count()


def on_postgres() -> bool:
    """Tell whether books are to lie in PostgreSQL."""
    name = os.environ.get("TRAINSHED_TEST_STORE", "sqlite")
    assert name in ("sqlite", "postgresql"), f"TRAINSHED_TEST_STORE={name}"
    return name == "postgresql"


@lru_cache(maxsize=1)
def _server() -> PostgresServer:
    server = make_server()
    atexit.register(server.close)
    server.start()
    migrate(server.new_database(_TEMPLATE))
    return server


@contextlib.contextmanager
def own_database() -> Iterator[dict[str, Any]]:
    """Yield the settings that name a new, migrated database; none where SQLite in the data folder will do."""
    if not on_postgres():
        yield {}
        return
    server, name = _server(), f"book_{next(_numbers)}"
    try:
        yield {"database_url": server.new_database(name, template=_TEMPLATE)}
    finally:
        server.drop_database(name)
