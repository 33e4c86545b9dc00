"""Start a program in its own session, tied to this process by a lifeline, and end it without leftovers.

Used for the trainer and for ingest. It must not know what the program does, nor anything of queue, SQL or
Redis: it knows processes, groups, limits and signals.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

Program = Literal["trainer", "simulator"]

# What a child may see of this process's environment. Addresses and secrets of the service are not on it.
ENVIRONMENT_NAMES = frozenset(
    ("PATH", "HOME", "USER", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
    + ("SSL_CERT_FILE", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_HOME", "MPLCONFIGDIR")
)
ENVIRONMENT_PREFIXES = ("LC_", "NVIDIA_", "NCCL_", "PYTORCH_", "OMP_", "MKL_", "GOMP_", "KMP_")
_PACKAGE_ROOT = Path(__file__).resolve().parent.parent
_SWEEP_S = 5.0
_STDERR = 2
# SIGKILL acts at once, unless the kernel itself waits for a device or a file system that does not answer.
_KILL_S = 30.0
STACKS_SIGNAL = signal.SIGUSR1


@dataclass(frozen=True)
class Limits:
    """Bounds the kernel enforces on a child; None means unbounded."""

    address_space_bytes: int | None = None
    cpu_s: int | None = None
    file_bytes: int | None = None

    def pairs(self) -> list[tuple[int, int]]:
        """Return (resource, bound) for each bound that is set."""
        known = (
            (resource.RLIMIT_AS, self.address_space_bytes),
            (resource.RLIMIT_CPU, self.cpu_s),
            (resource.RLIMIT_FSIZE, self.file_bytes),
        )
        return [(kind, bound) for kind, bound in known if bound is not None]


@dataclass(frozen=True)
class ChildSpec:
    """What to start: `argv`, the whole environment, the working folder and where its output goes.

    Without a log it goes where this process's own errors go.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    log: Path | None
    limits: Limits = Limits()


def child_environment(extra: Mapping[str, str], source: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the allowed part of `source` (default: this process's environment) with `extra` on top."""
    found = os.environ if source is None else source
    allowed = {
        name: value
        for name, value in found.items()
        if name in ENVIRONMENT_NAMES or name.startswith(ENVIRONMENT_PREFIXES)
    }
    allowed["PYTHONPATH"] = str(_PACKAGE_ROOT)
    allowed["PYTHONUNBUFFERED"] = "1"
    return {**allowed, **extra}


def module_command(module: str) -> tuple[str, ...]:
    """Return the command that runs `module`; -P keeps the child's folder off its import path."""
    return (sys.executable, "-P", "-m", module)


def child_command(program: Program) -> tuple[str, ...]:
    """Return the command of a program that takes an attempt's folder: trainer, or what stands in for it."""
    return module_command(f"worker.{program}")


class Child:
    """A running program: the leader of its own process group, with our end of its lifeline."""

    def __init__(self, process: subprocess.Popen[bytes], *, kill_s: float = _KILL_S) -> None:
        self._process = process
        self._lock = threading.Lock()
        self._clean = True
        self._kill_s = kill_s
        self._kill_by: float | None = None
        self.pid = process.pid

    @property
    def left_nothing(self) -> bool:
        """False if, after the end, a process of the group could not be removed."""
        return self._clean

    def poll(self) -> int | None:
        """Return the exit code (negative: the signal that killed it) or None while it runs.

        The group is swept while the dead leader still holds its number, so that no stranger can be hit.
        """
        with self._lock:
            if self._process.returncode is not None:
                return self._process.returncode
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
                return None
            self._signal_group(signal.SIGKILL)
            code = self._process.wait()
            self._clean = self._group_is_gone()
            self._close_lifeline()
            return code

    def wait(self, timeout_s: float) -> int | None:
        """Return the exit code as soon as there is one, or None after `timeout_s`."""
        end = time.monotonic() + timeout_s
        while (code := self.poll()) is None and time.monotonic() < end:
            time.sleep(0.02)
        return code

    def tell(self, line: bytes) -> bool:
        """Write a line to the child's standard input; tell whether it could be written."""
        with self._lock:
            if self._process.returncode is not None or self._process.stdin is None:
                return False
            try:
                self._process.stdin.write(line)
                self._process.stdin.flush()
            except OSError:
                return False
            return True

    def ask_to_stop(self) -> None:
        """Send SIGTERM to the leader alone; what its own helpers do is its business."""
        with self._lock:
            if self._process.returncode is None:
                self._process.send_signal(signal.SIGTERM)

    def kill(self) -> int:
        """Kill the whole group and return the leader's exit code.

        One that even SIGKILL does not end is given up after a while, and counts as left behind.
        """
        with self._lock:
            if self._process.returncode is None:
                self._signal_group(signal.SIGKILL)
        if self._kill_by is None:
            self._kill_by = time.monotonic() + self._kill_s
        while (code := self.wait(0.2)) is None:
            if time.monotonic() >= self._kill_by:
                self._clean = False
                return -signal.SIGKILL
        return code

    def dump_stacks(self) -> bool:
        """Have the child write where it is into its log; tell whether it listens for that.

        The signal would end a program that has no handler for it, so the kernel is asked first.
        """
        with self._lock:
            if self._process.returncode is not None or not _catches(self.pid, STACKS_SIGNAL):
                return False
            self._process.send_signal(STACKS_SIGNAL)
            return True

    def describe(self) -> dict[str, object]:
        """Return what the system says of the leader: its state and the processor seconds it has used."""
        try:
            process = psutil.Process(self.pid)
            times = process.cpu_times()
            return {"state": process.status(), "cpu_s": round(times.user + times.system, 1)}
        except psutil.Error:
            return {}

    def _signal_group(self, number: int) -> None:
        # PermissionError: macOS says so for a group of zombies; there is nothing left to signal then.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _group_is_gone(self) -> bool:
        end = time.monotonic() + _SWEEP_S
        while _group_members(self.pid):
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def _close_lifeline(self) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()


def _catches(pid: int, number: int) -> bool:
    """Tell whether a process has a handler for a signal; False where the system does not say."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def _group_members(group: int) -> list[int]:
    """Return the living processes of a group; zombies that nobody reaps do not count."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return []
    except PermissionError:
        pass
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process.pid)
    return members


class Spawner:
    """Starts children from one thread that lives as long as this process.

    A child's parent-death signal, where one is set, follows the thread that forked it: a pool thread that
    is recycled would kill a healthy child.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")

    def spawn(self, spec: ChildSpec) -> Child:
        """Start the program described by `spec`. Raise OSError if that is impossible."""
        return self._thread.submit(_start, spec).result()

    def close(self) -> None:
        """Let the thread go; children that still run lose their lifeline only with this process."""
        self._thread.shutdown()


def _start(spec: ChildSpec) -> Child:
    with contextlib.ExitStack() as opened:
        log = _STDERR if spec.log is None else opened.enter_context(spec.log.open("ab"))
        process = subprocess.Popen(
            spec.argv,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=spec.folder,
            env=dict(spec.environment),
            start_new_session=True,
        )
    # From outside instead of a preexec function, which is not safe in a process with threads; the child
    # is still starting its interpreter and has read nothing of the user's yet.
    for kind, bound in spec.limits.pairs():
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(process.pid, kind, (bound, bound))
    return Child(process)


def describe_exit(code: int) -> str:
    """Return an exit code in words: `exit 65` or `SIGKILL`."""
    if code >= 0:
        return f"exit {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def tail_text(path: Path, *, max_bytes: int = 2000) -> str:
    """Return the end of a log file as text, whole lines where possible; empty if there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - max_bytes))
            data = file.read()
    except OSError:
        return ""
    return data.decode("utf-8", "replace").strip()


def last_lines(text: str, num_lines: int) -> Sequence[str]:
    """Return the last `num_lines` lines of a text that are not blank."""
    return [line for line in text.splitlines() if line.strip()][-num_lines:]
