"""Bring a journal into SQL: epoch rows, the resume pointer, artifacts; every write behind the fence.

Lines are taken in order and forgotten only after their write was committed, and each write may be repeated,
so a database that is away costs time and nothing else. It must not know Redis nor the child.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from api.domain.blobs import BlobStore
from api.domain.errors import Fenced, StoreUnavailable
from api.domain.records import Artifact, EpochRow, Pointer
from api.domain.runs import RunBook
from api.domain.wire import EventId
from worker.attempt import AttemptFolder
from worker.journal import DamagedJournalError, Journal
from worker.progress import Progress, epoch_values, fold
from worker.prune import prune

_LOG = structlog.get_logger(__name__)
_BATCH = 500
# A full disk may empty again while the child prunes; past this many tries in a row it will not.
_MAX_STORAGE_ERRORS = 5


class UnshippedRowsError(Exception):
    """The thread died of something nobody foresaw; rows may lack."""


@dataclass(frozen=True)
class Owner:
    """Whose rows are written: the fence of every write."""

    job_id: str
    attempt: int


class RowShipper:
    """Moves whole journal lines to SQL and blobs in a thread of its own.

    `fenced` is set when a write was answered with the loss of the claim, `problem` when it cannot go on;
    `on_milestone` is called when the run enters a phase or ends an epoch.
    """

    def __init__(
        self,
        journal: Journal,
        folder: AttemptFolder,
        owner: Owner,
        book: RunBook,
        blobs: BlobStore,
        *,
        progress: Progress,
        on_milestone: Callable[[], None],
        poll_s: float,
        backoff_s: float,
    ) -> None:
        self._journal = journal
        self._folder = folder
        self._owner = owner
        self._book = book
        self._blobs = blobs
        self._on_milestone = on_milestone
        self._poll_s = poll_s
        self._backoff_s = backoff_s
        self._done = 0
        self._pending: list[EpochRow] = []
        self._storage_errors = 0
        self._finishing = threading.Event()
        self._given_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rows", daemon=True)
        self.progress = progress
        self.fenced = threading.Event()
        self._problem: Exception | None = None
        self._completed = False

    @property
    def last_event_id(self) -> str | None:
        """Id of the last event that was taken."""
        return str(EventId(self._owner.attempt, self._done)) if self._done else None

    def start(self) -> None:
        """Begin shipping."""
        self._thread.start()

    def finish(self) -> None:
        """Ship the rest of the journal, however long the database takes, and stop."""
        self._finishing.set()
        self._thread.join()

    def give_up(self) -> None:
        """Stop at the next pause, whatever is left."""
        self._given_up.set()
        self._finishing.set()

    def is_done(self) -> bool:
        """Tell whether the thread has ended."""
        return not self._thread.is_alive()

    @property
    def problem(self) -> Exception | None:
        """Why the rows cannot be brought to the end of the journal; None as long as they can."""
        died = self._thread.ident is not None and self.is_done() and not self._completed
        if died and self._problem is None and not self.fenced.is_set():
            return UnshippedRowsError("a fault of the worker, whose log has it")
        return self._problem

    def _run(self) -> None:
        try:
            self._ship_all()
            self._completed = True
        except Fenced:
            self.fenced.set()
        except (DamagedJournalError, OSError) as error:
            _LOG.error("rows cannot be shipped any further", job=self._owner.job_id, error=str(error))
            self._problem = error

    def _ship_all(self) -> None:
        while not self._given_up.is_set():
            last_look = self._finishing.is_set()
            try:
                moved = self._step()
                self._storage_errors = 0
            except StoreUnavailable as error:
                _LOG.warning("database is away, rows stay in the journal", error=error.message)
                self._given_up.wait(self._backoff_s)
                continue
            except OSError:
                self._storage_errors += 1
                if self._storage_errors > _MAX_STORAGE_ERRORS:
                    raise
                self._given_up.wait(self._backoff_s)
                continue
            if moved == 0:
                if last_look:
                    return
                self._finishing.wait(self._poll_s)

    def _step(self) -> int:
        events = self._journal.read(self._done + 1, max_lines=_BATCH)
        before = self.progress
        for event in events:
            self._take(event)
            # One by one: going back over a pointer that moved would point at a checkpoint that was pruned.
            self._done = int(event["seq"])
        self._flush_epochs()
        if (before.phase, before.last_epoch) != (self.progress.phase, self.progress.last_epoch):
            self._on_milestone()
        return len(events)

    def _take(self, event: Mapping[str, Any]) -> None:
        """Write one event; epoch rows may wait in `_pending` for the checkpoint that follows them."""
        self.progress = fold(self.progress, event)
        if event["type"] == "epoch":
            row = self._epoch_row(event)
            self._pending = [*(one for one in self._pending if one.epoch != row.epoch), row]
        elif event["type"] == "checkpoint":
            self._move_pointer(event)
        elif event["type"] == "artifact":
            self._flush_epochs()
            self._store_artifact(event)

    def _epoch_row(self, event: Mapping[str, Any]) -> EpochRow:
        return EpochRow(
            epoch=int(event["epoch"]),
            values=epoch_values(event),
            attempt=self._owner.attempt,
            event_id=self._event_id(event),
            recorded_at=time.time(),
        )

    def _event_id(self, event: Mapping[str, Any]) -> str:
        return str(EventId(self._owner.attempt, int(event["seq"])))

    def _flush_epochs(self) -> None:
        if self._pending:
            self._book.record_epochs(self._owner.job_id, self._owner.attempt, self._pending)
            self._pending = []

    def _move_pointer(self, event: Mapping[str, Any]) -> None:
        pointer = Pointer(
            attempt=self._owner.attempt,
            epoch=int(event["epoch"]),
            batch=int(event["batch"]),
            path=self._folder.in_job(event["path"]),
            sha256=event["sha256"],
            size_bytes=int(event["size_bytes"]),
            best=self.progress.best,
            after=self._event_id(event),
        )
        self._book.move_pointer(self._owner.job_id, self._owner.attempt, pointer, self._pending)
        self._pending = []
        best_epoch = self.progress.best["epoch"] if self.progress.best is not None else None
        prune(self._folder.job_folder, pointed=pointer.path, best_epoch=best_epoch)

    def _store_artifact(self, event: Mapping[str, Any]) -> None:
        try:
            blob = self._blobs.put_file(self._folder.path / event["path"])
        except FileNotFoundError:
            # Replaced under another name since; the event that says so follows.
            _LOG.info("artifact is gone again", job=self._owner.job_id, name=event["name"])
            return
        artifact = Artifact(
            name=event["name"],
            kind=event["kind"],
            sha256=blob.sha256,
            size_bytes=blob.size_bytes,
            media_type=event["media_type"],
            attempt=self._owner.attempt,
            created_at=time.time(),
        )
        self._book.add_artifacts(self._owner.job_id, self._owner.attempt, [artifact])
