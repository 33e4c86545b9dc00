"""Keep some room on the disk: what is sent in may not take the space that running jobs and the book need."""

from __future__ import annotations

import shutil
from pathlib import Path

from api.errors import StorageFullError

# The mark below which nothing is received: a twentieth of the disk, on a large one this much.
MOST_KEPT_BYTES = 1 << 30
KEPT_SHARE = 20


def low_water_bytes(total_bytes: int) -> int:
    """Return how much of a disk of this size stays free of uploads."""
    return min(MOST_KEPT_BYTES, total_bytes // KEPT_SHARE)


def check_room(folder: Path, size_bytes: int) -> None:
    """Raise StorageFullError where a disk would be left too full by so many bytes more; raises OSError."""
    disk = shutil.disk_usage(folder)
    if disk.free - size_bytes < low_water_bytes(disk.total):
        raise StorageFullError(
            f"the service has {disk.free} bytes of disk space left, of which some must stay free; "
            "`trainshed gc` tells what can go"
        )
