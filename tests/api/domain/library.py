"""A service's books over a fresh database with a clock that stands still, for tests of the domain.

On SQLite, over a copy of a migrated file, or on the PostgreSQL a database_url names, which is emptied.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from api.domain import tables
from api.domain.architectures import ArchitectureBook, NewArchitecture
from api.domain.blobs import Blob
from api.domain.clock import ManualClock
from api.domain.datasets import DatasetBook
from api.domain.jobs import JobBook
from api.domain.records import Architecture, Claim, Dataset, DatasetStatus, IngestResult, Job, NewJob, Pointer
from api.domain.settings import Settings
from api.domain.store import Store, migrate, open_store
from api.domain.tasks import TaskBook

OWNER = "usr_ann"
OTHER = "usr_bob"
QUEUE = "train.cpu"


@dataclass
class Library:
    """All books, and shortcuts to the states tests begin from."""

    settings: Settings
    store: Store
    clock: ManualClock

    def __post_init__(self) -> None:
        clock = self.clock.clock()
        self.jobs = JobBook(self.store, self.settings, clock)
        self.tasks = TaskBook(self.store, self.settings, clock)
        self.datasets = DatasetBook(self.store, clock)
        self.architectures = ArchitectureBook(self.store, clock)

    def dataset(self, name: str = "cells", *, owner: str = OWNER, sha: str = "a") -> Dataset:
        """Enter an archive; its ingest waits."""
        return self.datasets.create(owner, name, Blob(sha * 64, 10), file_name="cells.zip").dataset

    def ingest(self, status: DatasetStatus = DatasetStatus.READY) -> None:
        """Carry out the ingest that waits."""
        task = self.tasks.claim("ingest", "ingester")
        assert task is not None
        ready = status is DatasetStatus.READY
        result = IngestResult(
            status, "b" * 64, "c" * 64 if ready else None, classes=("x", "y"), num_errors=0 if ready else 3
        )
        self.tasks.finish_ingest(task.id, task.attempt, result)

    def architecture(self, name: str = "nano", *, owner: str = OWNER) -> Architecture:
        """Enter an architecture."""
        new = NewArchitecture(owner, name, "nc: 2", 10, 0.5, (8, 16, 32), 2, {"layers": []})
        return self.architectures.create(new)[0]

    def new_job(self, *, owner: str = OWNER, ready: bool = True, **more: Any) -> NewJob:
        """Return a submission on a dataset of its owner, made if needed."""
        known = [item for item in self.datasets.list(owner).items if item.name == "cells"]
        dataset = known[0] if known else self.dataset(owner=owner)
        if ready and dataset.status is DatasetStatus.INGESTING:
            self.ingest()
        architecture = self.architecture(owner=owner)
        return NewJob(owner, dataset.id, architecture.id, {"epochs": 3}, "d" * 64, **more)

    def submit(self, **more: Any) -> Job:
        """Queue a job."""
        return self.jobs.submit(self.new_job(**more)).job

    def claim(self, worker: str = "w1") -> Claim:
        """Claim the job that waits."""
        claim = self.jobs.claim(QUEUE, worker, host="h")
        assert claim is not None
        return claim

    def running(self, **more: Any) -> Claim:
        """Queue a job and claim it."""
        self.submit(**more)
        return self.claim()


def pointer(attempt: int, epoch: int, *, batch: int = 0, best: dict[str, Any] | None = None) -> Pointer:
    """Return a pointer to a checkpoint that exists only in words."""
    path = f"attempts/{attempt}/checkpoints/e{epoch:04}-b{batch:06}.ckpt"
    return Pointer(attempt, epoch, batch, path, "e" * 64, best=best, after=f"{attempt}-{10 * epoch + 9}")


def short_settings(folder: Path, **more: Any) -> Settings:
    """Return settings with short periods, in a folder."""
    periods: dict[str, Any] = {
        "heartbeat_s": 0.2,
        "lease_s": 2.0,
        "reaper_tick_s": 0.1,
        "reaper_gap_s": 1.0,
        "dispatcher_tick_s": 0.1,
        "singleton_s": 0.5,
        "retry_backoff_s": 0.1,
        "job_retries": 2,
    }
    return Settings(data_dir=folder, **{**periods, **more})


def make_template(folder: Path) -> Path:
    """Make a migrated SQLite file to copy: quicker than migrating for each test."""
    path = folder / "template.sqlite3"
    migrate(f"sqlite:///{path}")
    return path


@contextmanager
def open_library(template: Path, folder: Path, *, durable: bool = False, **more: Any) -> Iterator[Library]:
    """Open books over an empty database; a `database_url` among the settings names a migrated one.

    `durable` lets writes reach the disk, as they do in production.
    """
    settings = short_settings(folder, **more)
    if settings.database_url is None:
        shutil.copyfile(template, folder / "book.sqlite3")
    store = open_store(settings)
    if not durable:
        hurry(store)
    if settings.database_url is not None:
        store.write(empty)
    try:
        yield Library(settings, store, ManualClock())
    finally:
        store.close()


def hurry(store: Store) -> None:
    """Let new connections not wait for the disk: no test here pulls the plug."""
    setting = "PRAGMA synchronous=OFF" if store.dialect == "sqlite" else "SET synchronous_commit TO off"

    @event.listens_for(store.engine, "connect")
    def _configure(connection: Any, _record: object) -> None:
        connection.execute(setting)
        connection.commit()


def empty(conn: sa.Connection) -> None:
    """Delete every row of the book."""
    for table in reversed(tables.metadata.sorted_tables):
        conn.execute(sa.delete(table))
