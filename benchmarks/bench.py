"""What every measurement is given: a folder, the sizes, and the running service if it needs one."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.stats import Figure
from examples.service import LocalService

PACKAGE_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Bench:
    """`folder` is temporary; `quick` asks for sizes that show that it works, not what it costs."""

    folder: Path
    quick: bool
    _service: LocalService | None = None

    @property
    def service(self) -> LocalService:
        """The running stack."""
        assert self._service is not None, "this measurement needs the service"
        return self._service

    @property
    def data_dir(self) -> Path:
        """The data folder of the running stack."""
        return self.folder / "service"


Measure = Callable[[Bench], list[Figure]]


def one_thread(bench: Bench) -> dict[str, str]:
    """Return this process's environment for a program that computes in one thread.

    Its temporary files lie in the bench's folder, so that nothing is left of a program that was killed.
    """
    return dict(os.environ) | {
        "PYTHONPATH": str(PACKAGE_ROOT),
        "TMPDIR": str(bench.folder),
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
