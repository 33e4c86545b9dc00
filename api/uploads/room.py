"""Keep some room on the disk: what is sent in may not take the space that running jobs and the book need."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from api.errors import StorageFullError

# The mark below which nothing is received: a twentieth of the disk, on a large one this much.
MOST_KEPT_BYTES = 1 << 30
KEPT_SHARE = 0.05


@dataclass(frozen=True)
class Room:
    """The mark below which the disk of a folder may not be filled: a share of it, at most some bytes."""

    folder: Path
    low_water_bytes: int = MOST_KEPT_BYTES
    low_water_share: float = KEPT_SHARE

    def check(self, size_bytes: int) -> None:
        """Raise StorageFullError where so many bytes more would leave the disk too full; raises OSError."""
        disk = shutil.disk_usage(self.folder)
        if disk.free - size_bytes < self.kept_bytes(disk.total):
            raise StorageFullError(
                f"the service has {disk.free} bytes of disk space left, of which some must stay free; "
                "`trainshed gc` tells what can go"
            )

    def kept_bytes(self, total_bytes: int) -> int:
        """Return how much of a disk of this size stays free of uploads."""
        return min(self.low_water_bytes, int(total_bytes * self.low_water_share))
