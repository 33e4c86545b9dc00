"""The small programs of the images, run as the images run them, and redis.conf read by a real server."""

from __future__ import annotations

import itertools
import os
import runpy
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from api.domain.fleet import WorkerBook
from api.domain.records import Slot
from api.domain.settings import Settings
from api.domain.store import needs_migration, open_store
from api.domain.tokens import TokenBook
from api.stack.broker import answers, find_binary, server_command
from tests.support.books import until
from tests.support.shared import ROOT


def run_program(name: str, data: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program of docker/ with a data folder and nothing else of this process's settings."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TRAINSHED_")}
    environment = {**kept, "PYTHONPATH": str(ROOT), "TRAINSHED_DATA_DIR": str(data), **variables}
    command = [sys.executable, ROOT / "docker" / name]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_prepare_migrates_and_leaves_a_token_that_it_does_not_print(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    tokens = []
    for _ in range(2):
        done = run_program("prepare.py", tmp_path)
        assert done.returncode == 0, done.stderr
        path = settings.secrets_dir / "token"
        tokens.append(path.read_text("ascii").strip())
        assert tokens[-1] not in done.stdout + done.stderr
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert tokens[0] == tokens[1]
    store = open_store(settings)
    assert not needs_migration(store)
    principal = TokenBook(store).verify(tokens[0])
    assert principal is not None and principal.is_admin
    store.close()


def test_worker_health_looks_at_the_slots_of_its_host(tmp_path: Path) -> None:
    assert run_program("prepare.py", tmp_path).returncode == 0
    before = run_program("worker_health.py", tmp_path)
    assert before.returncode == 1
    assert "announced" in before.stdout
    store = open_store(Settings(data_dir=tmp_path))
    host = socket.gethostname()
    WorkerBook(store).announce(f"{host}/train.cpu/0", queue="train.cpu", host=host, pid=1, version="0")
    store.close()
    after = run_program("worker_health.py", tmp_path)
    assert (after.returncode, after.stdout) == (0, "1 slot(s) well\n")


def test_worker_health_does_not_blame_the_worker_for_the_database(tmp_path: Path) -> None:
    away = "postgresql+psycopg://trainshed@127.0.0.1:1/trainshed?connect_timeout=2"
    done = run_program("worker_health.py", tmp_path, TRAINSHED_DATABASE_URL=away)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("cannot tell")


def slot(state: str = "busy", *, host: str = "here", silent_s: float = 0.0) -> Slot:
    """Return a slot last seen `silent_s` before the moment 1000."""
    return Slot(f"{host}/q/0", "q", host, 1, (), "0", state, None, 1000.0 - silent_s, 0.0)


@pytest.mark.parametrize(
    ("slots", "code"),
    [
        ([], 1),
        ([slot()], 0),
        ([slot("draining")], 0),
        ([slot(silent_s=44)], 0),
        ([slot(silent_s=46)], 1),
        ([slot("gone")], 1),
        ([slot("unhealthy")], 1),
        ([slot(), slot("unhealthy", host="elsewhere")], 0),
        ([slot(host="elsewhere")], 1),
    ],
)
def test_worker_health_judges(slots: list[Slot], code: int) -> None:
    judge = runpy.run_path(str(ROOT / "docker" / "worker_health.py"))["judge"]
    assert judge(slots, "here", now=1000.0, patience_s=45.0)[0] == code


@pytest.fixture
def wire() -> Iterator[redis.Redis]:
    """A server over docker/redis.conf, its password on standard input as in the compose file."""
    folder = Path(tempfile.mkdtemp(prefix="ts-rc-"))
    options = ["--port", "0", "--unixsocket", str(folder / "s"), "--dir", str(folder)]
    process = subprocess.Popen(
        [find_binary(), ROOT / "docker" / "redis.conf", *options, "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    assert process.stdin is not None
    process.stdin.write(b"requirepass abc123\n")
    process.stdin.close()
    client = redis.Redis(unix_socket_path=str(folder / "s"), password="abc123")
    try:
        until(lambda: answers(f"unix://:abc123@{folder / 's'}"))
        yield client
    finally:
        client.close()
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder)


def test_redis_conf_wants_a_password_and_keeps_queues(wire: redis.Redis) -> None:
    stranger = redis.Redis(unix_socket_path=wire.connection_pool.connection_kwargs["path"])
    with pytest.raises(redis.AuthenticationError):
        stranger.ping()
    stranger.close()
    # Value by value what the one-machine stack gives its own server, places aside.
    flags = server_command(Path("server"), Path("socket"), Path("folder"))
    pairs = {key[2:]: value for key, value in itertools.pairwise(flags) if key.startswith("--")}
    shared = set(pairs) - {"port", "unixsocket", "unixsocketperm", "dir", "logfile", "maxmemory"}
    assert shared == {"appendonly", "appendfsync", "save", "maxmemory-policy", "daemonize"}
    found = wire.config_get(*shared)
    assert {key: found[key] for key in shared} == {key: pairs[key] for key in shared}
    assert wire.config_get("maxmemory")["maxmemory"] == str(256 << 20)
