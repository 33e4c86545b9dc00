"""The only ways to SQL: `read` and `write`. Everything above hands in a function of a connection.

A read returns values, never a cursor, before anyone sends a byte. A write is one transaction without I/O
inside, begun IMMEDIATE on SQLite, and run again as a whole when the database was busy or could not serialise
it. Knows no table.
"""

from __future__ import annotations

import logging
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, CursorResult, Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from api.domain.errors import StoreUnavailable
from api.domain.settings import Settings

T = TypeVar("T")
log = logging.getLogger(__name__)

MAX_TRIES = 4
PAUSE_S = 0.05
# PostgreSQL: serialization failure, deadlock detected.
RETRIED_SQLSTATES = frozenset({"40001", "40P01"})
# PostgreSQL: a lock was not free in the time allowed.
LOCK_TIMEOUT = "55P03"
# PostgreSQL: no connection, out of resources (disk, connections), being shut down.
AWAY_SQLSTATES = ("08", "53", "57P")
# SQLite: locked, or its disk is full or does not answer.
AWAY_SQLITE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
    }
)
# The versions in which the write-ahead log's reset race is mended, by line.
WAL_FIXED = {(3, 44): 6, (3, 50): 7, (3, 51): 3}


class Store:
    """One database, SQLite or PostgreSQL; safe to share between threads."""

    def __init__(self, engine: Engine, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.engine = engine
        self._sleep = sleep

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self.engine.dialect.name

    def read(self, fn: Callable[[Connection], T]) -> T:
        """Run a function that only looks, and return its values; raises StoreUnavailable.

        All it sees is of one moment, on either database.
        """
        return self._run(fn, write=False)

    def write(self, fn: Callable[[Connection], T]) -> T:
        """Run a function in one transaction; it may run several times, so it must do no I/O of its own.

        Whatever it raises rolls everything back. Raises StoreUnavailable when the database is away.
        """
        return self._run(fn, write=True)

    def write_if_free(self, fn: Callable[[Connection], object], *, wait_s: float = 0.1) -> bool:
        """Run a write that may as well not happen: one try, no longer than `wait_s` for a lock.

        Tells whether it was written; raises nothing for a database that is away or busy.
        """
        try:
            with self.engine.connect() as raw, _waiting_at_most(raw, wait_s):
                conn = raw.execution_options(trainshed_write=True)
                with conn.begin():
                    if self.dialect == "postgresql":
                        conn.exec_driver_sql(f"SET LOCAL lock_timeout = {int(wait_s * 1000)}")
                    fn(conn)
        except DBAPIError as error:
            if not _is_transient(error) and getattr(error.orig, "sqlstate", None) != LOCK_TIMEOUT:
                raise
            return False
        return True

    def ping(self) -> None:
        """Look into the catalogue, which no cache answers; raises StoreUnavailable."""
        self.read(lambda conn: len(sa.inspect(conn).get_table_names()))

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    def _run(self, fn: Callable[[Connection], T], *, write: bool) -> T:
        for attempt in range(1, MAX_TRIES + 1):
            try:
                return self._once(fn, write=write)
            except DBAPIError as error:
                if not _is_transient(error):
                    raise
                if attempt == MAX_TRIES:
                    raise StoreUnavailable(f"the database does not answer: {error.orig}") from error
                log.info("database busy, trying again (%d): %s", attempt, error.orig)
                self._sleep(PAUSE_S * 2**attempt)
        raise AssertionError("unreachable")

    def _once(self, fn: Callable[[Connection], T], *, write: bool) -> T:
        with self.engine.connect() as raw:
            conn = raw.execution_options(trainshed_write=write)
            if not write and conn.dialect.name != "sqlite":
                # SQLite's transactions are snapshots anyway; PostgreSQL's default takes one per statement.
                conn = conn.execution_options(isolation_level="REPEATABLE READ")
            with conn.begin():
                value = fn(conn)
        assert not isinstance(value, CursorResult | Iterator), "return values, not a cursor"
        return value


def open_store(settings: Settings) -> Store:
    """Open the book a settings object names; makes the data folder, does not migrate."""
    if settings.database_url is None:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    return Store(make_engine(settings.sql_url, busy_timeout_s=settings.sqlite_busy_timeout_s))


def make_engine(url: str, *, busy_timeout_s: float = 15.0) -> Engine:
    """Make an engine with the connection habits of its dialect."""
    if not url.startswith("sqlite"):
        return _postgres_engine(url, answer_s=busy_timeout_s)
    engine = sa.create_engine(
        url, pool_size=8, max_overflow=64, connect_args={"timeout": busy_timeout_s, "isolation_level": None}
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        for pragma in sqlite_pragmas(sqlite3.sqlite_version_info, busy_timeout_s=busy_timeout_s):
            connection.execute(pragma)

    @event.listens_for(engine, "begin")
    def _begin(conn: Connection) -> None:
        write = conn.get_execution_options().get("trainshed_write", True)
        conn.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _postgres_engine(url: str, *, answer_s: float) -> Engine:
    """Make an engine whose connections give up on a server that says nothing for `answer_s`.

    libpq would wait for ever on a line whose other end was lost without a word, and a heartbeat with it.
    """
    from api.domain.postgres import connect

    engine = sa.create_engine(url, pool_pre_ping=True, pool_size=5, max_overflow=20)

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: object, _record: object, cargs: list[Any], cparams: dict[str, Any]) -> object:
        return connect(*cargs, **cparams, answer_s=answer_s)

    return engine


def sqlite_pragmas(version: tuple[int, ...], *, busy_timeout_s: float) -> list[str]:
    """Return what each connection is told: the journal mode depends on the library's version."""
    mode = "WAL" if has_wal_fix(version) else "DELETE"
    return [
        f"PRAGMA busy_timeout={int(busy_timeout_s * 1000)}",
        f"PRAGMA journal_mode={mode}",
        "PRAGMA synchronous=FULL",
        "PRAGMA foreign_keys=ON",
    ]


def has_wal_fix(version: tuple[int, ...]) -> bool:
    """Tell whether this SQLite resets its write-ahead log safely (3.44.6, 3.50.7, 3.51.3 and their lines)."""
    line, patch = (version[0], version[1]), version[2]
    if line in WAL_FIXED:
        return patch >= WAL_FIXED[line]
    return line > max(WAL_FIXED)


def migrate(url: str) -> None:
    """Bring a database to the newest revision; makes it if it is not there."""
    from alembic import command

    if url.startswith("sqlite:///"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    command.upgrade(alembic_config(url), "head")


def alembic_config(url: str) -> Any:
    """Return Alembic's configuration for a database."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = url
    return config


def newest_revision() -> str:
    """Return the revision this program's tables have: the greatest that a migration's file name begins with.

    Not asked of Alembic, which would then stay in the memory of every API process.
    """
    versions = Path(__file__).parent / "migrations" / "versions"
    return max(path.name.partition("_")[0] for path in versions.glob("[0-9]*.py"))


def needs_migration(store: Store) -> bool:
    """Tell whether the database is behind this program."""
    return store.read(_revision) != newest_revision()


def disagreement(conn: Connection, schema: str) -> str | None:
    """Return why a program whose tables have revision `schema` must not work on this database, if so."""
    found = _revision(conn)
    if found in (None, schema):
        return None
    return f"the database is at schema revision {found}, this program at {schema}"


def _revision(conn: Connection) -> str | None:
    if not sa.inspect(conn).has_table("alembic_version"):
        return None
    return conn.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def insert_or_ignore(conn: Connection, table: sa.Table, values: Mapping[str, Any]) -> bool:
    """Insert a row unless its key is there; tells whether it was inserted."""
    # Told by RETURNING: the row count of an INSERT is not kept by every driver.
    if conn.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as pg_insert

        statement: Any = pg_insert(table).values(values).on_conflict_do_nothing()
    else:
        from sqlalchemy.dialects.sqlite import insert as sqlite_insert

        statement = sqlite_insert(table).values(values).on_conflict_do_nothing()
    return conn.execute(statement.returning(sa.literal(1))).one_or_none() is not None


def serialise(conn: Connection, name: str) -> None:
    """Wait until no other transaction that gave this name is open, as all writers of SQLite do anyway."""
    if conn.dialect.name == "postgresql":
        key = zlib.crc32(name.encode())
        conn.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))


@contextmanager
def _waiting_at_most(raw: Connection, wait_s: float) -> Iterator[None]:
    """Shorten a SQLite connection's own patience for a while."""
    connection = raw.connection.driver_connection
    if not isinstance(connection, sqlite3.Connection):
        yield
        return
    (before,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute(f"PRAGMA busy_timeout={int(wait_s * 1000)}")
    try:
        yield
    finally:
        connection.execute(f"PRAGMA busy_timeout={before}")


def _is_transient(error: DBAPIError) -> bool:
    sqlstate = getattr(error.orig, "sqlstate", None)
    if sqlstate is not None:
        return sqlstate in RETRIED_SQLSTATES or sqlstate.startswith(AWAY_SQLSTATES)
    if isinstance(error.orig, sqlite3.OperationalError):
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        return code in AWAY_SQLITE
    return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
