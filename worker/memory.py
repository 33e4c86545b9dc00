"""What kernel and driver say of memory: whether a child was killed for it, whether a run left some on a GPU.

Reads counters and asks the driver's own tool. It must not know jobs, nor load torch or open a CUDA context.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

PROC = Path("/proc")
CGROUP_ROOT = Path("/sys/fs/cgroup")
MIB = 1 << 20
# Longer than a large process takes to die after the kernel chose it.
_WINDOW_S = 30.0
_LOOK_S = 1.0
# A driver keeps some for itself, and others may use the display.
_LEFTOVER_BYTES = 256 * MIB
# Asked between a claim and its first heartbeat: well under any lease.
_TOOL_TIMEOUT_S = 10.0


def oom_counter(pid: int, *, proc: Path = PROC, root: Path = CGROUP_ROOT) -> Path | None:
    """Return the file that counts out-of-memory kills in the memory group of a process; None if none is seen.

    cgroup 2: `memory.events`; cgroup 1: `memory.oom_control`. In a container the group's own path may not be
    visible: then the nearest folder above it, which is the container's.
    """
    with contextlib.suppress(OSError):
        for line in (proc / str(pid) / "cgroup").read_text().splitlines():
            number, _, rest = line.partition(":")
            names, _, group = rest.partition(":")
            if number == "0" and not names:
                found = _nearest(root, group, "memory.events") or _nearest(
                    root / "unified", group, "memory.events"
                )
            elif "memory" in names.split(","):
                found = _nearest(root / "memory", group, "memory.oom_control")
            else:
                continue
            if found is not None:
                return found
    return None


def _nearest(mount: Path, group: str, name: str) -> Path | None:
    parts = [part for part in group.split("/") if part not in ("", "..")]
    for depth in range(len(parts), -1, -1):
        path = mount.joinpath(*parts[:depth]) / name
        if path.is_file():
            return path
    return None


def num_oom_kills(counter: Path) -> int | None:
    """Return the `oom_kill` line of a counter file; None where it cannot be read or has none."""
    with contextlib.suppress(OSError, ValueError):
        for line in counter.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return None


class OomWatch:
    """Tells whether the kernel has killed a process of a group for memory in the last half minute.

    The counter is that of the whole group: kills long before a child's end are not held against it.
    """

    def __init__(self, counter: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._counter = counter
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()
        self.look()

    def look(self) -> None:
        """Read the counter, at most once a second; call this now and then while the child runs."""
        now = self._clock()
        if self._counter is None or (self._seen and now - self._seen[-1][0] < _LOOK_S):
            return
        count = num_oom_kills(self._counter)
        if count is not None:
            self._seen.append((now, count))
        # One that is older than the window stays: it is what the newest is compared with.
        while len(self._seen) > 1 and now - self._seen[1][0] >= _WINDOW_S:
            self._seen.popleft()

    def has_killed(self) -> bool:
        """Return whether the counter has risen since the beginning of the window."""
        if self._counter is None or not self._seen:
            return False
        count = num_oom_kills(self._counter)
        return count is not None and count > self._seen[0][1]


class GpuMemory(Protocol):
    """How much memory is in use on devices."""

    def used_bytes(self, gpus: Sequence[str]) -> Mapping[str, int] | None:
        """Return the bytes in use by device id; None where the driver does not answer."""


class NvidiaSmi:
    """Asks the driver's own tool."""

    def __init__(self, tool: str | None = None) -> None:
        self._tool = tool or shutil.which("nvidia-smi")

    def used_bytes(self, gpus: Sequence[str]) -> Mapping[str, int] | None:
        """Return the bytes in use by device id (index or UUID); None where there is no tool or it fails."""
        if self._tool is None:
            return None
        query = ("--query-gpu=index,uuid,memory.used", "--format=csv,noheader,nounits")
        try:
            asked = subprocess.run(
                (self._tool, *query), capture_output=True, text=True, timeout=_TOOL_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.SubprocessError):
            return None
        used: dict[str, int] = {}
        for line in asked.stdout.splitlines() if asked.returncode == 0 else ():
            index, uuid, mebibytes = (part.strip() for part in line.split(","))
            if mebibytes.isdigit():
                names = [gpu for gpu in gpus if gpu == index or (len(gpu) > 4 and uuid.startswith(gpu))]
                used |= dict.fromkeys(names, int(mebibytes) * MIB)
        return used if used.keys() == set(gpus) else None


class LeftoverCheck:
    """Compares the memory in use on a slot's devices before a run and after it."""

    def __init__(self, memory: GpuMemory, gpus: Sequence[str], *, patience_s: float) -> None:
        self._memory = memory
        self._gpus = tuple(gpus)
        self._patience_s = patience_s
        self._before = memory.used_bytes(self._gpus) if self._gpus else None

    def problem(self) -> str | None:
        """Return what is wrong with the devices after the run, None if nothing is or nothing can be told.

        The driver takes memory back some time after a process ends: it is asked again for a while.
        """
        if self._before is None:
            return None
        end = time.monotonic() + self._patience_s
        while (found := self._compare(self._before)) is not None and time.monotonic() < end:
            time.sleep(min(0.5, self._patience_s / 10))
        return found

    def _compare(self, before: Mapping[str, int]) -> str | None:
        after = self._memory.used_bytes(self._gpus)
        if after is None:
            return "the GPU driver does not answer any more"
        for gpu in self._gpus:
            left = after[gpu] - before[gpu]
            if left > _LEFTOVER_BYTES:
                return f"{left // MIB} MiB of GPU {gpu} are still in use after the run"
        return None
