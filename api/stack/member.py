"""One program of the stack: how it is started, watched, asked to stop, and killed with all that it started.

Each runs in a session of its own, so that only the supervisor hears the terminal, and with a lifeline: a pipe
on its standard input that ends with the supervisor, however that dies.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_MAX_LOG_BYTES = 8 << 20
_TAIL_BYTES = 4000
_GONE_WITHIN_S = 5.0


@dataclass(frozen=True)
class MemberSpec:
    """What to run; `is_ready` is asked with the process's number until it says yes."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    is_ready: Callable[[int], bool]
    ready_within_s: float = 60.0
    stop_within_s: float = 15.0


class Member:
    """A program of the stack, running or not."""

    def __init__(self, spec: MemberSpec, keep_open: Sequence[int] = ()) -> None:
        self.spec = spec
        self._keep_open = tuple(keep_open)
        self._process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0
        self.is_ready = False

    @property
    def name(self) -> str:
        """Return the member's name."""
        return self.spec.name

    @property
    def pid(self) -> int | None:
        """Return the number of the running process, None if none runs."""
        return self._process.pid if self._process is not None and self.poll() is None else None

    def start(self) -> None:
        """Start the program; raises OSError where that is impossible."""
        self.spec.log.parent.mkdir(parents=True, exist_ok=True)
        self.bound_log()
        with self.spec.log.open("ab") as log:
            self._process = subprocess.Popen(
                list(self.spec.command),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(self.spec.environment),
                start_new_session=True,
                pass_fds=self._keep_open,
            )
        self.started_at = time.monotonic()
        self.is_ready = False

    def poll(self) -> int | None:
        """Return the exit code of a program that ended (None while it runs, or was never started).

        It is not reaped before `kill`, so that its group's number cannot become a stranger's.
        """
        if self._process is None:
            return None
        ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def check_ready(self) -> bool:
        """Ask once whether the program is ready, and remember a yes."""
        if not self.is_ready and (pid := self.pid) is not None:
            self.is_ready = self.spec.is_ready(pid)
        return self.is_ready

    def ask_to_stop(self) -> None:
        """Send one SIGTERM to the program itself."""
        if (pid := self.pid) is not None:
            os.kill(pid, signal.SIGTERM)

    def kill(self) -> None:
        """Kill the program and whatever it started, other sessions included, and reap it."""
        if self._process is None:
            return
        family = _family(self._process.pid) + _group(self._process.pid)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for process in family:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._process.wait()
        _await_end(family, _GONE_WITHIN_S)
        self.forget()

    def forget(self) -> None:
        """Let go of a program that has ended."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        self._process = None
        self.is_ready = False

    def bound_log(self) -> None:
        """Keep one older log once the current one is large; the program goes on writing to the same file."""
        with contextlib.suppress(OSError):
            if self.spec.log.stat().st_size > _MAX_LOG_BYTES:
                shutil.copyfile(self.spec.log, _older(self.spec.log))
                # It is open for appending, so what is written next begins at the new end.
                os.truncate(self.spec.log, 0)

    def log_tail(self, lines: int = 12) -> list[str]:
        """Return the last lines of the program's log."""
        try:
            with self.spec.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return []
        return [line for line in text.splitlines() if line.strip()][-lines:]


def _family(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def _group(group: int) -> list[psutil.Process]:
    """Return the processes of a group; of a leader that died they are nobody's children any more."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
            if process.pid != group and os.getpgid(process.pid) == group:
                found.append(process)
    return found


def _await_end(family: Sequence[psutil.Process], within_s: float) -> None:
    """Wait until killed processes run no more; whether somebody reaps them is not ours to wait for."""
    end = time.monotonic() + within_s
    while any(_runs(process) for process in family) and time.monotonic() < end:
        time.sleep(0.01)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _older(log: Path) -> Path:
    return log.with_name(log.name + ".1")


def describe_exit(code: int) -> str:
    """Return an exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"
