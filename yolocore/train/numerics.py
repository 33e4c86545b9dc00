"""The process-wide switches that numbers depend on, set for one run and put back after it.

Thread counts and deterministic kernels are global in torch and OpenCV; this is the only file that touches
them.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import torch


def environment() -> dict[str, str]:
    """Return the versions and the processor that numbers depend on to the last bit."""
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "machine": platform.machine(),
        "processor": torch.backends.cpu.get_cpu_capability(),
    }


@contextmanager
def numerics(threads: int | None, device: torch.device) -> Iterator[int]:
    """Fix threads and deterministic kernels inside; yield the number of threads.

    Fresh memory is not filled with NaN, which costs a tenth of a step and helps only those who read memory
    they never wrote.
    """
    before = (
        torch.get_num_threads(),
        cv2.getNumThreads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch._C._get_deterministic_fill_uninitialized_memory(),
        torch.backends.cudnn.deterministic,
    )
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.deterministic = True
    if threads is not None:
        torch.set_num_threads(threads)
    cv2.setNumThreads(0)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch._C._set_deterministic_fill_uninitialized_memory(False)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
        torch.use_deterministic_algorithms(before[2], warn_only=before[3])
        torch._C._set_deterministic_fill_uninitialized_memory(before[4])
        torch.backends.cudnn.deterministic = before[5]
