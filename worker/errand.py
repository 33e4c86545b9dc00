"""Run one claimed task: start the limited child, keep the claim, publish what it made, write the verdict.

What the child is told and what becomes of its result is the business of classes elsewhere, one a kind of
task. It must not know what a task is about.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import structlog

from api.domain.blobs import Blob, BlobStore
from api.domain.errors import Fenced, StoreUnavailable
from api.domain.failures import Failure, FailureCode
from api.domain.records import Task
from api.domain.settings import Settings
from api.domain.tasks import TaskBook
from worker.child import Child, ChildSpec, Limits, Spawner, child_environment, describe_exit, tail_text
from worker.ladder import read_json, write_json
from worker.lease import LeaseKeeper
from worker.memory import OomWatch, oom_counter
from worker.outcome import EXIT_DATA, code_of_exit, storage_failure

_LOG = structlog.get_logger(__name__)
_POLL_S = 0.05
_DRAIN_S = 10.0
LOG_NAME = "child.log"


class UntrueResultError(Exception):
    """What the child left is not what its result says."""


@dataclass(frozen=True)
class ErrandTools:
    """What every task of a slot shares; `command` is what its children run, their folder is appended."""

    settings: Settings
    book: TaskBook
    blobs: BlobStore
    spawner: Spawner
    drain: threading.Event
    command: tuple[str, ...]
    oom_counter: Callable[[int], Path | None] = oom_counter


class Errand(ABC):
    """One attempt at one task, from claim to its end in the book."""

    noun: ClassVar[str]
    subject: ClassVar[str]

    def __init__(self, task: Task, tools: ErrandTools) -> None:
        self._task = task
        self._tools = tools
        self._folder = tools.settings.tasks_dir / task.id / str(task.attempt)
        self._lease = LeaseKeeper(
            lambda: tools.book.heartbeat(task.id, task.attempt), period_s=tools.settings.heartbeat_s
        )
        self._log = _LOG.bind(task=task.id, attempt=task.attempt)
        self.left_nothing = True
        self._oom_killed = False
        self._took_too_long = False

    @property
    @abstractmethod
    def _timeout_s(self) -> float:
        """Longest time the child may take."""

    @abstractmethod
    def _order(self) -> dict[str, Any]:
        """Return what the child is told, as task.json."""

    @abstractmethod
    def _limits(self) -> Limits:
        """Return what the child may use."""

    def _environment(self) -> Mapping[str, str]:
        """Return the child's whole environment: one thread and no device, but for a task that trains."""
        return child_environment({"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""})

    @abstractmethod
    def _publish(self, result: dict[str, Any]) -> Callable[[], Task]:
        """Store what the child made; return what writes its verdict. Raises OSError, UntrueResultError."""

    def run(self) -> None:
        """Do the whole attempt; returns when the book knows how it ended, or that it is no longer ours."""
        self._lease.start()
        try:
            end = self._carry_out()
            if end is not None:
                self._persist(end)
        except Fenced:
            self._log.warning(f"the {self.noun} is no longer ours, all of this attempt is discarded")
        finally:
            self._lease.stop()
            self._clear()

    def _carry_out(self) -> Callable[[], Task] | None:
        """Run the child and publish; return what ends the attempt in the book, None if the claim was lost."""
        book, task = self._tools.book, self._task
        try:
            code = self._run_child()
            if self._lease.fenced.is_set():
                return None
            if code is None:
                return lambda: book.release(task.id, task.attempt)
            result = read_json(self._folder / "result.json")
            if code not in (0, EXIT_DATA) or not isinstance(result, dict):
                failure = self._failure(code)
                return lambda: book.fail(task.id, task.attempt, failure)
            return self._publish(result)
        except (OSError, UntrueResultError) as error:
            failure = storage_failure(f"the {self.subject} could not be stored", error)
            return lambda: book.fail(task.id, task.attempt, failure)

    def _run_child(self) -> int | None:
        """Return the child's exit code; None if it was ended by a wish, by draining or with the claim."""
        child = self._spawn()
        oom = OomWatch(self._tools.oom_counter(child.pid))
        end_at = time.monotonic() + self._timeout_s
        try:
            while (code := child.wait(_POLL_S)) is None:
                if self._lease.fenced.is_set() or self._lease.wish is not None or self._tools.drain.is_set():
                    return None
                oom.look()
                if time.monotonic() >= end_at:
                    self._log.warning(f"the {self.noun} takes too long, killing it")
                    self._took_too_long = True
                    code = child.kill()
                    break
            self._oom_killed = oom.has_killed()
        finally:
            child.kill()
            self.left_nothing = child.left_nothing
        self._log.info("child ended", how=describe_exit(code))
        return code

    def _spawn(self) -> Child:
        self._clear()
        self._folder.mkdir(parents=True)
        write_json(self._folder / "task.json", self._order())
        return self._tools.spawner.spawn(
            ChildSpec(
                argv=(*self._tools.command, str(self._folder)),
                environment=self._environment(),
                folder=self._folder,
                log=self._folder / LOG_NAME,
                limits=self._limits(),
            )
        )

    def _clear(self) -> None:
        """Remove this attempt's folder, and the task's if it was the last: another's may be in use."""
        shutil.rmtree(self._folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._folder.parent.rmdir()

    def _failure(self, code: int) -> Failure:
        evidence = {"exit": code, "log": tail_text(self._folder / LOG_NAME)}
        if self._took_too_long:
            message = f"the {self.noun} took longer than {self._timeout_s:g} s"
            return Failure(FailureCode.STALLED, message, evidence=evidence)
        message = f"the {self.noun} ended with {describe_exit(code)} and no verdict"
        return Failure(code_of_exit(code, oom_killed=self._oom_killed), message, evidence=evidence)

    def _put(self, path: Path) -> Blob:
        blob = self._tools.blobs.put_file(path)
        with contextlib.suppress(StoreUnavailable):
            # Only a list for the collector; the row of the subject is what counts.
            self._tools.book.note_blob(self._task.id, self._task.attempt, blob.sha256, blob.size_bytes)
        return blob

    def _persist(self, write: Callable[[], Task]) -> None:
        """Write to a database that may be away, as long as the claim holds; raises Fenced when it is lost."""
        give_up_at: float | None = None
        while True:
            try:
                task = write()
            except StoreUnavailable as error:
                if self._tools.drain.is_set() and give_up_at is None:
                    give_up_at = time.monotonic() + _DRAIN_S
                if give_up_at is not None and time.monotonic() >= give_up_at:
                    raise Fenced(
                        f"the end of the {self.noun} could not be written; the reaper will"
                    ) from error
                time.sleep(min(1.0, self._tools.settings.heartbeat_s))
            else:
                self._log.info(f"{self.noun} ended", status=task.status.value, failures=task.failures)
                return
