"""Names for what the machine refuses: memory and disk. It must not know exit codes."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import torch

from yolocore.errors import DiskFullError, OutOfMemoryError
from yolocore.train.files import FULL, disk_full

CPU_ALLOCATOR = (
    *("DefaultCPUAllocator", "can't allocate memory", "not enough memory", "bad_alloc"),
    *("can't start new thread", "failed to map segment"),  # for its stack, for a library
)
DISK = ("No space left on device", "file write failed")


@contextmanager
def naming_failures() -> Iterator[None]:
    """Turn torch's, OpenCV's and the system's refusals into OutOfMemoryError and DiskFullError."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemoryError(_memory_hint(error)) from error
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise OutOfMemoryError(_memory_hint(error)) from error
        raise
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise OutOfMemoryError(_memory_hint(error)) from error
        if error.errno in FULL:
            raise disk_full(error, place=error.filename) from error
        raise
    except (RuntimeError, ImportError) as error:
        text = str(error)
        if any(words in text for words in CPU_ALLOCATOR):
            raise OutOfMemoryError(_memory_hint(error)) from error
        if any(words in text for words in DISK):
            raise DiskFullError("no space left on the disk") from error
        raise


def _memory_hint(error: BaseException) -> str:
    first = str(error).strip().splitlines()[:1]
    return "the run does not fit into memory; lower the batch or the image size" + (
        f" ({first[0][:200]})" if first else ""
    )
