"""Runs the one-machine stack as a child of a script: started, waited for, and surely stopped."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

_UP_WITHIN_S = 120.0
_DOWN_WITHIN_S = 100.0
_PACKAGE_ROOT = Path(__file__).resolve().parent.parent


class ServiceError(Exception):
    """The service did not come up; its own words are in the text."""


class LocalService:
    """The stack on a free port in a data folder; use it in a `with` block.

    Leaving the block stops everything. An interrupt while it stops is passed on as the second request, which
    kills what is left. A lifeline ends the stack should this process be killed.
    """

    def __init__(self, data_dir: Path, *, port: int = 0) -> None:
        self._data_dir = data_dir
        self._port = port
        self._lines: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self.url = ""
        self.token = ""
        self.browser_url = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "api.local", "--lifeline", "--data", str(self._data_dir)]
            + ["--port", str(self._port)],
            cwd=_PACKAGE_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(
            target=self._read, args=(self._process,), name="stack-output", daemon=True
        )
        self._reader.start()
        try:
            self._await_up(self._process)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self._lines.append(line.rstrip())

    def _await_up(self, process: subprocess.Popen[str]) -> None:
        connection = self._data_dir.absolute() / "run" / "connection.json"
        end = time.monotonic() + _UP_WITHIN_S
        while not (opened := [line for line in self._lines if line.startswith("open ")]):
            if process.poll() is not None or time.monotonic() > end:
                time.sleep(0.2)
                raise ServiceError("\n".join(self._lines) or "the service did not start")
            time.sleep(0.05)
        found = json.loads(connection.read_text(encoding="utf-8"))
        self.url, self.token = found["url"], found["token"]
        self.browser_url = opened[0].removeprefix("open ")

    def stop(self) -> None:
        """Ask the stack to stop and wait for its end; killed after a while, or by a second interrupt."""
        process, self._process = self._process, None
        if process is None:
            return
        _signal(process)
        end = time.monotonic() + _DOWN_WITHIN_S
        while process.poll() is None:
            try:
                process.wait(1.0)
            except subprocess.TimeoutExpired:
                if time.monotonic() > end:
                    process.kill()
            except KeyboardInterrupt:
                _signal(process)
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        if self._reader is not None:
            self._reader.join(5.0)


def _signal(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
