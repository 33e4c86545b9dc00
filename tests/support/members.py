"""One program of a stack under test, that can be killed, stopped, continued and started again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.support.shared import ROOT


def until(condition: Callable[[], Any], what: str, timeout_s: float = 60.0) -> float:
    """Wait for a condition and return the seconds it took; fail when it does not come."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout_s, f"waited {timeout_s:g} s in vain for: {what}"
        time.sleep(0.02)
    return time.monotonic() - began


def living(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Return those that still run."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def mentioning(text: str) -> list[psutil.Process]:
    """Return the living processes whose command line speaks of something, this one aside."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if process.pid != os.getpid() and any(text in word for word in line):
            found.append(process)
    return living(found)


class Program:
    """A program with a session and a lifeline of its own; what it prints goes to `log`."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        self.environment = dict(environment)
        self._command = list(command)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The last process that was started."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process

    @property
    def pid(self) -> int:
        """Its number."""
        return self.process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it runs, stopped or not."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it; it must not run already."""
        assert not self.is_alive, f"{self.name} runs already"
        self._close_lifeline()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def family(self) -> list[psutil.Process]:
        """Return every process below it."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.pid).children(recursive=True)
        return []

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the program itself."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill the program alone, as `kill -9` does, and reap it."""
        self.process.kill()
        self.process.wait(20)

    def suspend(self) -> None:
        """Stop it in its tracks (SIGSTOP)."""
        self.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        self.send(signal.SIGCONT)

    def stop(self, timeout_s: float = 30.0) -> int:
        """Ask it to end (SIGTERM) and return its exit code."""
        self.send(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def end(self) -> None:
        """Kill it and everything below it, whatever state they are in."""
        if self._process is None:
            return
        family = self.family()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self.is_alive:
            self.process.kill()
        self.process.wait(20)
        self._close_lifeline()

    def _close_lifeline(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def tail(self, lines: int = 30) -> str:
        """Return the last lines it printed."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])
