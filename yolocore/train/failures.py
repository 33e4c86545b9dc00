"""Names for what the machine refuses: memory and disk. It must not know exit codes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from yolocore.errors import DiskFullError, OutOfMemoryError
from yolocore.train.files import FULL

CPU_ALLOCATOR = ("DefaultCPUAllocator", "can't allocate memory", "not enough memory")
DISK = ("No space left on device", "file write failed")


@contextmanager
def naming_failures() -> Iterator[None]:
    """Turn torch's and the system's refusals into OutOfMemoryError and DiskFullError."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemoryError(_memory_hint(error)) from error
    except OSError as error:
        if error.errno in FULL:
            raise DiskFullError("no space left on the disk", place=error.filename) from error
        raise
    except RuntimeError as error:
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
