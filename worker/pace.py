"""How a simulated run goes, and what shall go wrong with it, as a test writes it into a file.

The environment cannot carry it: children of a worker are given none of its variables. The file is looked for
in the folders above the attempt's, nearest first, and read again before each batch, so that a test can hold a
run at a batch of its choice and let it go. It must not know what is simulated.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from yolocore.errors import ConfigError, DiskFullError, NonFiniteError, OutOfMemoryError

PACE_FILE = "simulation.json"
_HANG_S = 3600.0


class Fault(BaseModel):
    """What shall go wrong before a batch of an attempt; `code` is that of `exit`.

    `hang` answers nothing any more, `deaf` goes on but never stops when asked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    attempt: int = Field(1, ge=1)
    epoch: int = Field(0, ge=0)
    batch: int = Field(0, ge=0)
    how: Literal["kill", "segfault", "exit", "hang", "deaf", "memory", "disk", "nan"]
    code: int = Field(1, ge=0, le=255)


class Pace(BaseModel):
    """How a simulated run goes; `simulation.json` of its job's folder, else of the data folder, holds it.

    `batches` of an epoch are those of the dataset where it is None. `hold` (epoch, batch) is waited at until
    the file says otherwise. `logs` lines of `log_bytes` come with each batch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_s: float = Field(0.02, ge=0)
    prepare_s: float = Field(0.0, ge=0)
    validate_s: float = Field(0.0, ge=0)
    export_s: float = Field(0.0, ge=0)
    batches: int | None = Field(None, ge=1)
    noise: float = Field(0.05, ge=0, le=1)
    hold: tuple[int, int] | None = None
    logs: int = Field(0, ge=0)
    log_bytes: int = Field(80, ge=1)
    faults: tuple[Fault, ...] = ()


class PaceReader:
    """Reads the pace again whenever its file has changed."""

    def __init__(self, folder: Path) -> None:
        self._places = [parent / PACE_FILE for parent in folder.parents]
        self._seen: tuple[object, ...] = ()
        self._pace = Pace()

    def __call__(self) -> Pace:
        """Return the pace of now; raises ConfigError for a file that holds none."""
        for path in self._places:
            try:
                found = path.stat()
            except OSError:
                continue
            seen = (path, found.st_ino, found.st_mtime_ns)
            if seen != self._seen:
                self._pace, self._seen = _read_pace(path), seen
            return self._pace
        return Pace()


def _read_pace(path: Path) -> Pace:
    try:
        return Pace.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ConfigError(f"{path.name} cannot be used: {error}", place=path.name) from error


def suffer(fault: Fault) -> None:
    """Let a fault happen to this process; returns only for those that leave it going."""
    if fault.how in ("kill", "segfault"):
        os.kill(os.getpid(), signal.SIGKILL if fault.how == "kill" else signal.SIGSEGV)
    elif fault.how == "exit":
        os._exit(fault.code)
    elif fault.how == "hang":
        time.sleep(_HANG_S)
    elif fault.how == "memory":
        raise OutOfMemoryError("simulated: memory ran out", place="/batch")
    elif fault.how == "disk":
        raise DiskFullError("simulated: the disk is full", place="checkpoints")
    elif fault.how == "nan":
        raise NonFiniteError("simulated: the loss is not finite", place="a batch")
