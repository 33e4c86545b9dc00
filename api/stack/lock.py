"""One stack a data folder: a lock that lives as long as any process of the stack does.

Members inherit the lock's file, so a supervisor that was killed does not let a second stack in before the
last member of the first one is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self


class FolderInUseError(Exception):
    """Another stack holds the folder; `pid` is its supervisor's, None if it left no number."""

    def __init__(self, folder: Path, pid: int | None) -> None:
        self.pid = pid
        holder = f"process {pid}" if pid is not None else "another process"
        super().__init__(f"the data folder {folder} is in use by {holder}")


class FolderLock:
    """The lock `.lock` of a data folder; hold it in a `with` block."""

    def __init__(self, folder: Path, *, patience_s: float = 90.0) -> None:
        self._folder = folder
        self._path = folder / ".lock"
        self._patience_s = patience_s
        self.fileno = -1

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self) -> None:
        """Take the lock and write this process's number into it.

        A living holder is refused at once (FolderInUseError). Where only members of a killed stack are left,
        they are given `patience_s` to end.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self.fileno = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        give_up_at = time.monotonic() + self._patience_s
        while not self._try():
            pid = self._holder()
            if pid is None or _is_alive(pid) or time.monotonic() >= give_up_at:
                os.close(self.fileno)
                raise FolderInUseError(self._folder, pid)
            time.sleep(0.1)
        os.ftruncate(self.fileno, 0)
        os.pwrite(self.fileno, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let the lock go; members that still run keep it until they end."""
        os.close(self.fileno)

    def _try(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(self.fileno, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    def _holder(self) -> int | None:
        with contextlib.suppress(ValueError):
            return int(os.pread(self.fileno, 32, 0))
        return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
