"""What every measurement is given: a folder, the sizes, and the running service if it needs one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.stats import Curve, Figure
from examples.service import LocalService

PACKAGE_ROOT = Path(__file__).resolve().parent.parent
PEER = PACKAGE_ROOT / ".cache/bench-peer"  # the environment of `make bench-peer`


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


Measure = Callable[[Bench], Sequence[Figure | Curve]]


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


def ask(
    bench: Bench,
    program: str,
    *arguments: object,
    environment: Mapping[str, str] | None = None,
    python: Path | None = None,
) -> Any:
    """Run `python -m benchmarks.PROGRAM` and return the JSON of its last line; one thread unless told other.

    `python` is that of another environment.

    Raises CalledProcessError where the program fails.
    """
    command = [str(python or sys.executable), "-m", f"benchmarks.{program}", *map(str, arguments)]
    asked = subprocess.run(
        command,
        cwd=PACKAGE_ROOT,
        env=one_thread(bench) if environment is None else dict(environment),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(asked.stdout.splitlines()[-1])
