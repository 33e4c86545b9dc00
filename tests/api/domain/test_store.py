"""Two helpers only reach SQL: what they promise about retries, roll-back and journal mode."""

from __future__ import annotations

import secrets
import sqlite3
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from api.domain import tables
from api.domain.errors import StoreUnavailable
from api.domain.jobs import JobBook
from api.domain.settings import Settings
from api.domain.store import (
    Store,
    alembic_config,
    has_wal_fix,
    make_engine,
    migrate,
    needs_migration,
    newest_revision,
    sqlite_pragmas,
)
from tests.api.domain.library import Library
from tests.support.postgres import PostgresServer


def sqlite_store(path: Path, *, busy_timeout_s: float = 0.05) -> Store:
    return Store(make_engine(f"sqlite:///{path}", busy_timeout_s=busy_timeout_s), sleep=lambda _s: None)


@pytest.mark.parametrize(
    ("version", "fixed"),
    [
        ((3, 40, 1), False),
        ((3, 44, 5), False),
        ((3, 44, 6), True),
        ((3, 45, 9), False),
        ((3, 50, 6), False),
        ((3, 50, 7), True),
        ((3, 51, 2), False),
        ((3, 51, 3), True),
        ((3, 52, 0), True),
        ((4, 0, 0), True),
    ],
)
def test_wal_only_where_it_is_safe(version: tuple[int, int, int], fixed: bool) -> None:
    assert has_wal_fix(version) is fixed
    pragmas = sqlite_pragmas(version, busy_timeout_s=15)
    assert f"PRAGMA journal_mode={'WAL' if fixed else 'DELETE'}" in pragmas
    assert {"PRAGMA synchronous=FULL", "PRAGMA busy_timeout=15000"} <= set(pragmas)


def test_connections_are_configured(tmp_path: Path) -> None:
    store = sqlite_store(tmp_path / "a.db", busy_timeout_s=15)
    names = ("synchronous", "busy_timeout", "foreign_keys")
    found = store.read(lambda conn: [conn.exec_driver_sql(f"PRAGMA {n}").scalar_one() for n in names])
    assert found == [2, 15000, 1]
    store.close()


def test_what_a_write_raises_rolls_back(library: Library) -> None:
    def write(conn: Connection) -> None:
        conn.execute(sa.insert(tables.leases).values(name="x", holder="me"))
        raise KeyError("no")

    with pytest.raises(KeyError):
        library.store.write(write)
    count = sa.select(sa.func.count()).select_from(tables.leases)
    assert library.store.read(lambda conn: conn.execute(count).scalar_one()) == 0


def test_a_cursor_is_no_answer(library: Library) -> None:
    with pytest.raises(AssertionError, match="not a cursor"):
        library.store.read(lambda conn: conn.execute(sa.select(1)))


def test_a_write_that_may_as_well_not_happen(tmp_path: Path) -> None:
    store = sqlite_store(tmp_path / "a.db", busy_timeout_s=15)
    store.write(lambda conn: conn.exec_driver_sql("CREATE TABLE seen (n INTEGER)").rowcount)

    def insert(conn: Connection) -> object:
        return conn.exec_driver_sql("INSERT INTO seen VALUES (1)")

    def count() -> int:
        return store.read(lambda conn: int(conn.exec_driver_sql("SELECT count(*) FROM seen").scalar_one()))

    assert store.write_if_free(insert)
    with store.engine.connect() as locker:
        locker.exec_driver_sql("SELECT 1")
        assert not store.write_if_free(insert, wait_s=0.01)
        locker.rollback()
    assert count() == 1
    # Whichever of the pool's connections it was: each has its own patience again.
    with store.engine.connect() as first, store.engine.connect() as second:
        raw = [connection.connection.driver_connection for connection in (first, second)]
        assert [one.execute("PRAGMA busy_timeout").fetchone()[0] for one in raw if one] == [15000, 15000]
    with pytest.raises(sa.exc.OperationalError):
        store.write_if_free(lambda conn: conn.exec_driver_sql("no SQL"))
    store.close()


def test_other_errors_are_not_retried(library: Library) -> None:
    calls = []

    def write(conn: Connection) -> None:
        calls.append(1)
        conn.execute(sa.insert(tables.tasks).values(id="t", status="nonsense", created_at=1.0))

    with pytest.raises(IntegrityError):
        library.store.write(write)
    assert len(calls) == 1


def test_a_locked_database_is_tried_again_then_away(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = sqlite_store(path)
    store.write(lambda conn: conn.exec_driver_sql("CREATE TABLE t (n INTEGER)").rowcount)
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreUnavailable):
        store.write(lambda conn: conn.exec_driver_sql("INSERT INTO t VALUES (1)").rowcount)
    with pytest.raises(StoreUnavailable):
        store.ping()
    lock.execute("ROLLBACK")
    lock.close()
    store.write(lambda conn: conn.exec_driver_sql("INSERT INTO t VALUES (2)").rowcount)
    assert store.read(lambda conn: conn.exec_driver_sql("SELECT n FROM t").scalar_one()) == 2
    store.close()


def test_a_write_is_run_again_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("CREATE TABLE t (n INTEGER)")
    lock.execute("BEGIN EXCLUSIVE")
    pauses = []

    def let_go(seconds: float) -> None:
        pauses.append(seconds)
        if lock.in_transaction:
            lock.execute("ROLLBACK")

    store = Store(make_engine(f"sqlite:///{path}", busy_timeout_s=0.01), sleep=let_go)
    store.write(lambda conn: conn.exec_driver_sql("INSERT INTO t VALUES (1)").rowcount)
    assert len(pauses) == 1
    assert lock.execute("SELECT count(*) FROM t").fetchone() == (1,)
    lock.close()
    store.close()


def test_writers_wait_for_each_other(library: Library) -> None:
    table = tables.leases
    library.store.write(lambda conn: conn.execute(sa.insert(table).values(name="n", holder="h")).rowcount)
    add = sa.update(table).values(seq=table.c.seq + 1)

    def work() -> None:
        for _ in range(10):
            library.store.write(lambda conn: conn.execute(add).rowcount)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert library.store.read(lambda conn: conn.execute(sa.select(table.c.seq)).scalar_one()) == 60


@pytest.fixture(params=["sqlite", "postgresql"])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that nobody has migrated."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'deep' / 'book.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database(f"new_{secrets.token_hex(6)}")


def test_migrations_make_exactly_the_tables(new_url: str) -> None:
    from alembic.autogenerate import compare_metadata

    url = new_url
    migrate(url)
    store = Store(make_engine(url))

    def differences(conn: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(conn), tables.metadata))

    assert store.read(differences) == []
    store.close()
    command.check(alembic_config(url))


def test_migrating_twice_is_once(new_url: str, tmp_path: Path) -> None:
    url = new_url
    (tmp_path / "deep").mkdir()
    store = Store(make_engine(url))
    assert needs_migration(store)
    migrate(url)
    assert not needs_migration(store)
    migrate(url)
    command.downgrade(alembic_config(url), "base")
    assert needs_migration(store)
    store.close()


def test_a_book_of_the_first_release_is_kept(new_url: str) -> None:
    if new_url.startswith("sqlite"):
        Path(new_url.removeprefix("sqlite:///")).parent.mkdir(parents=True)
    command.upgrade(alembic_config(new_url), "0001")
    store = Store(make_engine(new_url))

    def old_rows(conn: Connection) -> None:
        conn.exec_driver_sql(
            "INSERT INTO datasets (id, owner, name, status, file_name, sha256, size_bytes, classes, splits, "
            "created_at) VALUES ('ds_1', 'o', 'd', 'ready', 'f', 'a', 1, '[]', '{}', 1)"
        )
        conn.exec_driver_sql(
            "INSERT INTO architectures (id, owner, name, text, hash, num_parameters, strides, summary, "
            "created_at) VALUES ('arch_1', 'o', 'a', 't', 'h', 1, '[]', '{}', 1)"
        )
        conn.exec_driver_sql(
            "INSERT INTO jobs (id, owner, name, tags, config, config_hash, dataset_id, architecture_id, "
            "queue, status, created_at) VALUES "
            "('job_1', 'o', 'n', '[]', '{}', 'c', 'ds_1', 'arch_1', 'train.cpu', 'queued', 1)"
        )

    store.write(old_rows)
    migrate(new_url)
    [job] = JobBook(store, Settings()).list().items
    assert (job.id, job.max_runtime_s, job.ran_s, job.simulated, job.cleared_at) == (
        "job_1",
        None,
        0,
        False,
        None,
    )
    command.downgrade(alembic_config(new_url), "0001")
    count = store.read(lambda conn: conn.exec_driver_sql("SELECT count(*) FROM jobs").scalar_one())
    assert count == 1
    store.close()


def test_a_full_disk_is_a_database_that_is_away(tmp_path: Path) -> None:
    store = sqlite_store(tmp_path / "a.db")
    store.write(lambda conn: conn.exec_driver_sql("CREATE TABLE t (b BLOB)").rowcount)

    def fill(conn: Connection) -> int:
        conn.exec_driver_sql("PRAGMA max_page_count=3")
        return conn.exec_driver_sql("INSERT INTO t VALUES (zeroblob(1000000))").rowcount

    with pytest.raises(StoreUnavailable, match="full"):
        store.write(fill)
    store.close()


def test_the_newest_revision_is_the_one_alembic_would_reach() -> None:
    script = ScriptDirectory.from_config(alembic_config(""))
    assert newest_revision() == script.get_current_head()
