"""What the figures were taken on, and what a process of the stack holds of memory, as Linux tells it."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil

from benchmarks.report import Setting

ROLES = ("API", "ingest worker", "train worker")
_RESET_PEAK = "5"


@dataclass(frozen=True)
class Memory:
    """Resident and proportional memory of a process in bytes, and whether torch is mapped into it."""

    rss_bytes: int
    pss_bytes: int
    has_torch: bool


def setting(load_before: float) -> Setting:
    """Return where and when this is; `load_before` was taken before the first figure."""
    return Setting(
        date=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        torch=version("torch"),
        revision=_revision(),
        load_before=load_before,
        load_after=load(),
    )


def load() -> float:
    """Return the length of the run queue over the last minute."""
    return os.getloadavg()[0]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _revision() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    folder = Path(__file__).resolve().parent
    try:
        asked = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown"
    return asked.stdout.strip() or "unknown"


def members(data_dir: Path) -> dict[str, psutil.Process]:
    """Return the stack's processes by role; the stack runs in `data_dir`."""
    connection = json.loads((data_dir / "run" / "connection.json").read_text(encoding="utf-8"))
    found = {}
    for process in psutil.Process(connection["pid"]).children():
        words = process.cmdline()
        if "api.server" in words:
            found["API"] = process
        elif "worker.app" in words:
            found["ingest worker" if "ingest" in words else "train worker"] = process
    return found


def memory(process: psutil.Process) -> Memory:
    """Return what a process holds now."""
    used = process.memory_full_info()
    maps = Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8")
    return Memory(used.rss, used.pss, "libtorch" in maps)


def reset_peak(process: psutil.Process) -> None:
    """Let the kernel forget the largest resident size so far; if it may not, the peak is since the start."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{process.pid}/clear_refs").write_text(_RESET_PEAK, encoding="ascii")


def peak_bytes(process: psutil.Process) -> int:
    """Return the largest resident size since `reset_peak`."""
    for line in Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("the kernel tells no peak")
