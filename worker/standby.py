"""Keep a trainer that has loaded what it needs before there is a job, and hand it the next attempt.

Loading torch is most of the time from a claim to the first batch. A job that needs another environment than
the one that stands by, or finds it dead, gets a process of its own as ever: standing by only saves time. It
must not know what the program does, nor anything of queue, SQL or Redis.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import structlog

from api.domain.settings import Settings
from worker.child import Child, ChildSpec, Spawner, child_environment
from worker.fleet import SlotSpec
from worker.lifeline import STANDBY, order_line

_LOG = structlog.get_logger(__name__)


class Starter(Protocol):
    """What starts a child."""

    def spawn(self, spec: ChildSpec) -> Child:
        """Start the program described by `spec`. Raise OSError if that is impossible."""
        ...


def trainer_environment(settings: Settings, slot: SlotSpec, threads: int | None = None) -> dict[str, str]:
    """Return the environment of a slot's trainer; `threads` are the job's, the settings' if it names none."""
    extra = {
        "OMP_NUM_THREADS": str(threads or settings.train_threads),
        "OMP_WAIT_POLICY": settings.omp_wait_policy.upper(),
    }
    return child_environment({**extra, **slot.environment()})


class Standby:
    """At most one process that waits for an attempt; starts the others through the spawner."""

    def __init__(
        self, spawner: Spawner, command: tuple[str, ...], environment: dict[str, str], folder: Path
    ) -> None:
        self._spawner = spawner
        self._command = command
        self._spec = ChildSpec((*command, STANDBY), environment, folder, None)
        self._child: Child | None = None

    @property
    def pid(self) -> int | None:
        """The process that waits, if there is one."""
        return None if self._child is None else self._child.pid

    def prepare(self) -> None:
        """Start a process that waits, unless one does."""
        if self._child is not None and self._child.poll() is None:
            return
        try:
            self._child = self._spawner.spawn(self._spec)
        except OSError as error:
            _LOG.warning("no trainer stands by", error=str(error))

    def spawn(self, spec: ChildSpec) -> Child:
        """Give the attempt to the process that waits, or start one. Raise OSError if that is impossible."""
        child, self._child = self._child, None
        if child is None:
            return self._spawner.spawn(spec)
        if self._fits(spec) and child.poll() is None and _hand_over(child, spec):
            return child
        child.kill()
        return self._spawner.spawn(spec)

    def _fits(self, spec: ChildSpec) -> bool:
        return (
            spec.argv[:-1] == self._command
            and dict(spec.environment) == self._spec.environment
            and spec.limits == self._spec.limits
        )

    def close(self) -> None:
        """End the process that waits."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()


def _hand_over(child: Child, spec: ChildSpec) -> bool:
    return spec.log is not None and child.tell(order_line(spec.folder, spec.log))
