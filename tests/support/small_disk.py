"""A small file system of its own under a folder, so that a test can fill a real disk and empty it again."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

MIB = 1 << 20


class SmallDisk:
    """A mounted file system; `fill` takes what is free of it, `empty` gives it back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self, leave_bytes: int = 0) -> None:
        """Write until no more than so many bytes are free."""
        with self._ballast.open("ab", buffering=0) as file:
            for size in (1 << 16, 1 << 12):
                with contextlib.suppress(OSError):
                    while shutil.disk_usage(self.folder).free - size >= leave_bytes:
                        if file.write(bytes(size)) < size:
                            break

    def take_names(self) -> None:
        """Make files until no other can be made, with most of the space still free."""
        names = self.folder / "names"
        with contextlib.suppress(OSError):
            names.mkdir(exist_ok=True)
            for number in range(100_000):
                (names / str(number)).touch()

    def empty(self) -> None:
        """Give everything back."""
        self._ballast.unlink(missing_ok=True)
        shutil.rmtree(self.folder / "names", ignore_errors=True)


@contextlib.contextmanager
def small_disk(folder: Path, size_bytes: int = 32 * MIB, *, names: int = 2000) -> Iterator[SmallDisk]:
    """Mount a file system of this size; skips the test where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={size_bytes},nr_inodes={names}"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small file system")
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a small file system")
    try:
        yield SmallDisk(folder)
    finally:
        # Lazily: a process that just ended may hold a file for a moment.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
