"""A private PostgreSQL for tests: a cluster in a temporary folder, on a unix socket, that can be stopped.

The binaries are looked for where Debian keeps them and on the path. PostgreSQL refuses root, so its programs
run as the user `postgres` then. Nothing here talks to a server that a test did not start itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.shared import missing

if TYPE_CHECKING:
    import psycopg

USER = "trainshed"
_DEBIAN = Path("/usr/lib/postgresql")
_PR_SET_PDEATHSIG = 1
# Few tests pull the plug, so nothing has to reach the disk.
HASTE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
OPTIONS = {
    "listen_addresses": "",
    "shared_buffers": "64MB",
    "max_connections": "120",
    "autovacuum": "on",
    "timezone": "UTC",
}

_CUT_OTHERS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
_RESTART_SEQUENCES = """
    SELECT setval(format('%I.%I', schemaname, sequencename)::regclass, start_value, false) FROM pg_sequences
"""


def find_binaries() -> Path | None:
    """Return the folder that has both `initdb` and `postgres`, of the newest version; None where absent."""
    found = [path.parent for path in _DEBIAN.glob("*/bin/initdb")]
    found.sort(key=lambda folder: float(folder.parent.name) if folder.parent.name.isdigit() else 0.0)
    if (on_path := shutil.which("initdb")) is not None:
        found.insert(0, Path(on_path).resolve().parent)
    whole = [folder for folder in found if (folder / "initdb").exists() and (folder / "postgres").exists()]
    return whole[-1] if whole else None


def _account() -> dict[str, Any] | None:
    """Return as whom to run the server: nobody special, or `postgres` for root; None where that is absent."""
    if os.geteuid() != 0:
        return {}
    try:
        entry = pwd.getpwnam("postgres")
    except KeyError:
        return None
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _die_with_parent() -> None:
    # A test run that is killed leaves no server behind: SIGINT is PostgreSQL's fast shutdown.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


class PostgresServer:
    """One cluster and its server process; `stop`, `kill` and `start` keep its data."""

    def __init__(self, binaries: Path, account: dict[str, Any], *, durable: bool = False) -> None:
        self._binaries = binaries
        self._options = OPTIONS if durable else OPTIONS | HASTE
        self._account = account
        self.folder = Path(tempfile.mkdtemp(prefix="ts-pg-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._elsewhere: set[str] = set()
        if account:
            os.chown(self.folder, account["user"], account["group"])
        command = [str(binaries / "initdb"), "-D", str(self.data), "-U", USER, "-A", "trust"]
        command += ["-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"]
        subprocess.run(command, check=True, capture_output=True, cwd="/", **account)

    @property
    def data(self) -> Path:
        """Folder of the cluster."""
        return self.folder / "data"

    def url(self, database: str = "postgres") -> str:
        """Return the SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://{USER}@/{database}?host={self.folder}"

    def __enter__(self) -> PostgresServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self, timeout_s: float = 60.0) -> None:
        """Start the server and wait until it answers."""
        assert self._process is None
        command = [str(self._binaries / "postgres"), "-D", str(self.data), "-k", str(self.folder)]
        for name, value in self._options.items():
            command += ["-c", f"{name}={value}"]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                preexec_fn=_die_with_parent,
                **self._account,
            )
        end = time.monotonic() + timeout_s
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "server.log").read_text(errors="replace")
            assert time.monotonic() < end, "PostgreSQL did not start in time"
            time.sleep(0.02)

    def stop(self, timeout_s: float = 60.0) -> None:
        """Shut the server down, cutting every connection."""
        self._end(signal.SIGINT, timeout_s)

    def kill(self, timeout_s: float = 60.0) -> None:
        """End the server as a crash of all its processes would: no checkpoint, recovery at the next start."""
        self._end(signal.SIGQUIT, timeout_s)

    def _end(self, number: signal.Signals, timeout_s: float) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(timeout_s)
        finally:
            self._process = None

    def new_database(self, name: str, *, template: str = "template1", folder: Path | None = None) -> str:
        """Make a database, empty or like another that nobody is connected to, and return its URL.

        It is kept in a new `folder` that the server's user can reach, or with the cluster.
        """
        if folder is None:
            self._execute(f"CREATE DATABASE {name} TEMPLATE {template}")
            return self.url(name)
        folder.mkdir(mode=0o700)
        if self._account:
            os.chown(folder, self._account["user"], self._account["group"])
        self._execute(f"CREATE TABLESPACE {name} LOCATION '{folder}'")
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template} TABLESPACE {name}")
        self._elsewhere.add(name)
        return self.url(name)

    def recycle(self, name: str, new_name: str, statements: Sequence[str]) -> None:
        """Cut a database's connections, run what empties it, and give it another name.

        Takes a tenth of the time of a new database, which waits for the disk. Whoever still uses the old name
        finds nothing there.
        """
        with self._connect(name) as connection:
            for statement in (_CUT_OTHERS, *statements, _RESTART_SEQUENCES):
                connection.execute(statement.encode())
        self._execute(f"ALTER DATABASE {name} RENAME TO {new_name}")

    def drop_database(self, name: str) -> None:
        """Remove a database, cutting its connections."""
        self._execute(f"DROP DATABASE {name} WITH (FORCE)")
        if name in self._elsewhere:
            self._elsewhere.remove(name)
            self._execute(f"DROP TABLESPACE {name}")

    def close(self) -> None:
        """Stop the server and remove its data."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self) -> bool:
        import psycopg

        try:
            self._execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _execute(self, statement: str) -> None:
        with self._connect("postgres") as connection:
            connection.execute(statement.encode())

    def _connect(self, database: str) -> psycopg.Connection[Any]:
        import psycopg

        where = f"host={self.folder} user={USER} dbname={database} connect_timeout=5"
        return psycopg.connect(where, autocommit=True)


def is_installed() -> bool:
    """Tell whether a server can be made here."""
    return find_binaries() is not None and _account() is not None


def make_server(*, durable: bool = False) -> PostgresServer:
    """Return a server over a new cluster, not yet started; skips the test where PostgreSQL is absent.

    A `durable` one waits for the disk, as servers do in production.
    """
    binaries, account = find_binaries(), _account()
    if binaries is None or account is None:
        missing("postgres", "PostgreSQL (initdb, postgres) or its user is not installed")
        raise AssertionError
    return PostgresServer(binaries, account, durable=durable)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One running server for all tests that do not stop it."""
    with make_server() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres: PostgresServer) -> str:
    """A migrated database; whoever uses it empties it first."""
    from api.domain.store import migrate

    url = postgres.new_database("books")
    migrate(url)
    return url
