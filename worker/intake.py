"""Run one claimed ingest: start the limited child, keep the claim, publish what it made, write the verdict.

Publishing goes images, manifest, report, row: whoever sees a ready dataset finds all of it. Nothing the child
wrote is believed where it can be checked: contents are hashed again on their way into the blob store.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from api.domain.blobs import Blob, BlobStore
from api.domain.errors import Fenced, StoreUnavailable
from api.domain.failures import Failure, FailureCode
from api.domain.records import DatasetStatus, IngestResult, Task
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
SHOWN_FILES = frozenset({"thumbnails", "page"})


class UntrueResultError(Exception):
    """What the child left is not what its result says."""


@dataclass(frozen=True)
class IntakeTools:
    """What every ingest of a slot shares."""

    settings: Settings
    book: TaskBook
    blobs: BlobStore
    spawner: Spawner
    drain: threading.Event
    command: tuple[str, ...]
    oom_counter: Callable[[int], Path | None] = oom_counter


class Intake:
    """One attempt at one ingest, from claim to its end in the book."""

    def __init__(self, task: Task, tools: IntakeTools) -> None:
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

    def run(self) -> None:
        """Do the whole attempt; returns when the book knows how it ended, or that it is no longer ours."""
        self._lease.start()
        try:
            end = self._carry_out()
            if end is not None:
                self._persist(end)
        except Fenced:
            self._log.warning("the ingest is no longer ours, all of this attempt is discarded")
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
            verdict = self._publish(result)
        except (OSError, UntrueResultError) as error:
            failure = storage_failure("the dataset could not be stored", error)
            return lambda: book.fail(task.id, task.attempt, failure)
        return lambda: book.finish_ingest(task.id, task.attempt, verdict)

    def _run_child(self) -> int | None:
        """Return the child's exit code; None if it was ended by a wish, by draining or with the claim."""
        child = self._spawn()
        oom = OomWatch(self._tools.oom_counter(child.pid))
        end_at = time.monotonic() + self._tools.settings.ingest_timeout_s
        try:
            while (code := child.wait(_POLL_S)) is None:
                if self._lease.fenced.is_set() or self._lease.wish is not None or self._tools.drain.is_set():
                    return None
                oom.look()
                if time.monotonic() >= end_at:
                    self._log.warning("ingest takes too long, killing it")
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
        settings = self._tools.settings
        self._clear()
        self._folder.mkdir(parents=True)
        write_json(
            self._folder / "task.json",
            {
                "archive": str(self._tools.blobs.path(self._task.payload["sha256"])),
                "name": self._task.payload["file_name"],
                "options": self._task.payload.get("options") or {},
                "limits": {
                    "max_total_bytes": settings.max_unpacked_bytes,
                    "max_entries": settings.max_entries,
                    "memory_bytes": settings.ingest_memory_bytes,
                },
            },
        )
        limits = Limits(
            address_space_bytes=settings.ingest_memory_bytes,
            # Several threads may work at once; the wall clock is watched here.
            cpu_s=max(1, int(4 * settings.ingest_timeout_s)),
            file_bytes=settings.max_unpacked_bytes,
        )
        return self._tools.spawner.spawn(
            ChildSpec(
                argv=(*self._tools.command, str(self._folder)),
                environment=child_environment({"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}),
                folder=self._folder,
                log=self._folder / "ingest.log",
                limits=limits,
            )
        )

    def _clear(self) -> None:
        """Remove this attempt's folder, and the task's if it was the last: another's may be in use."""
        shutil.rmtree(self._folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._folder.parent.rmdir()

    def _failure(self, code: int) -> Failure:
        evidence = {"exit": code, "log": tail_text(self._folder / "ingest.log")}
        if self._took_too_long:
            message = f"the ingest took longer than {self._tools.settings.ingest_timeout_s:g} s"
            return Failure(FailureCode.STALLED, message, evidence=evidence)
        message = f"the ingest ended with {describe_exit(code)} and no verdict"
        return Failure(code_of_exit(code, oom_killed=self._oom_killed), message, evidence=evidence)

    def _publish(self, result: dict[str, Any]) -> IngestResult:
        usable = result["status"] == "ready"
        ready = usable and not result.get("inspected")
        manifest = self._publish_dataset(result["manifest_hash"]) if ready else None
        report = self._put(self._folder / "report.json")
        statistics = read_json(self._folder / "statistics.json") if usable else None
        found = DatasetStatus.READY if ready else DatasetStatus.INSPECTED
        return IngestResult(
            status=found if usable else DatasetStatus.INVALID,
            report_sha256=report.sha256,
            manifest_hash=manifest.sha256 if manifest is not None else None,
            statistics=statistics if isinstance(statistics, dict) else None,
            classes=tuple(result.get("classes", ())),
            splits=result.get("splits", {}),
            num_boxes=int(result.get("num_boxes", 0)),
            num_errors=int(result["errors"]),
            num_warnings=int(result["warnings"]),
            files=self._publish_files(result.get("files")),
        )

    def _publish_files(self, files: object) -> dict[str, str]:
        """Store what is only looked at; return digests by what it is. Raises UntrueResultError."""
        found: dict[str, str] = {}
        for kind, name in files.items() if isinstance(files, dict) else ():
            if kind not in SHOWN_FILES or name is None:
                continue
            path = self._folder / str(name)
            if path.parent != self._folder or path.is_symlink() or not path.is_file():
                raise UntrueResultError(f"there is no {kind} named {str(name)[:80]!r}")
            # Named by the dataset's row alone, so that it goes with it.
            found[kind] = self._tools.blobs.put_file(path).sha256
        return found

    def _publish_dataset(self, manifest_hash: str) -> Blob:
        """Store images, then the manifest; raises UntrueResultError where names and contents disagree."""
        path = self._folder / "manifest.json"
        for sha256 in sorted({image["sha256"] for image in json.loads(path.read_bytes())["images"]}):
            if self._tools.blobs.has(sha256):
                continue
            stored = self._tools.blobs.move_file(self._folder / "images" / sha256[:2] / sha256)
            if stored.sha256 != sha256:
                raise UntrueResultError(f"image {sha256} has another content")
        manifest = self._put(path)
        if manifest.sha256 != manifest_hash:
            raise UntrueResultError(f"manifest {manifest_hash} has another content")
        return manifest

    def _put(self, path: Path) -> Blob:
        blob = self._tools.blobs.put_file(path)
        with contextlib.suppress(StoreUnavailable):
            # Only a list for the collector; the dataset's row is what counts.
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
                    raise Fenced("the end of the ingest could not be written; the reaper will") from error
                time.sleep(min(1.0, self._tools.settings.heartbeat_s))
            else:
                self._log.info("ingest ended", status=task.status.value, failures=task.failures)
                return
