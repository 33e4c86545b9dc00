"""What a run costs its machine: processor, memory, GPU memory. It must not know the loop."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

from yolocore.spec.events import System

PERIOD_S = 10.0


def gpu_memory_bytes(device: torch.device) -> int | None:
    """Return what this process holds of a GPU's memory, None on a CPU; no synchronisation."""
    return torch.cuda.memory_reserved(device) if device.type == "cuda" else None


def rss_bytes() -> int:
    """Return the resident memory of this process; 0 where the system does not tell it."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


class SystemMeter:
    """Emits a system event every ten seconds, measured over that time."""

    def __init__(self, emit: Callable[[System], None], device: torch.device) -> None:
        self._emit = emit
        self._device = device
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def tick(self) -> None:
        """Emit if it is time."""
        wall = time.monotonic()
        if wall - self._wall < PERIOD_S:
            return
        cpu = time.process_time()
        percent = 100 * (cpu - self._cpu) / (wall - self._wall)
        self._wall, self._cpu = wall, cpu
        self._emit(
            System(
                cpu_percent=round(percent, 1),
                rss_bytes=rss_bytes(),
                gpu_memory_bytes=gpu_memory_bytes(self._device),
            )
        )
