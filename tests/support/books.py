"""A migrated book with a ready dataset and an architecture, and settings with short periods."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.domain.architectures import ArchitectureBook, NewArchitecture
from api.domain.blobs import Blob, BlobStore
from api.domain.datasets import DatasetBook
from api.domain.jobs import JobBook
from api.domain.records import DatasetStatus, IngestResult, Job, NewJob
from api.domain.settings import Settings
from api.domain.store import Store, migrate, open_store
from api.domain.tasks import TaskBook

OWNER = "pr_test"


def short_settings(data_dir: Path, redis_url: str, **more: Any) -> Settings:
    """Return settings under which faults are noticed within a second or two."""
    periods: dict[str, Any] = {
        "heartbeat_s": 0.2,
        "lease_s": 2.0,
        "reaper_tick_s": 0.1,
        "reaper_gap_s": 1.0,
        "dispatcher_tick_s": 0.1,
        "retry_backoff_s": 0.1,
        "stop_grace_s": 5.0,
        "redis_timeout_s": 2.0,
    }
    return Settings(data_dir=data_dir, redis_url=redis_url, **{**periods, **more})


@dataclass(frozen=True)
class Books:
    """All books over one store, and what a job needs to be submitted."""

    settings: Settings
    store: Store
    jobs: JobBook
    tasks: TaskBook
    datasets: DatasetBook
    blobs: BlobStore
    dataset_id: str
    architecture_id: str

    def submit(self, **config: Any) -> Job:
        """Queue a job on the ready dataset."""
        full = {"epochs": 3, **config}
        config_hash = hashlib.sha256(json.dumps(full, sort_keys=True).encode()).hexdigest()
        new = NewJob(OWNER, self.dataset_id, self.architecture_id, full, config_hash)
        return self.jobs.submit(new).job

    def upload(self, name: str, content: bytes) -> str:
        """Store an archive and queue its ingest; return the dataset's id."""
        archive = self.blobs.put_bytes(content)
        return self.datasets.create(OWNER, name, archive, file_name=f"{name}.zip").dataset.id


def make_books(settings: Settings) -> Books:
    """Migrate a new book and fill it."""
    migrate(settings.sql_url)
    store = open_store(settings)
    blobs = BlobStore(settings.blobs_dir)
    jobs, tasks, datasets = JobBook(store, settings), TaskBook(store, settings), DatasetBook(store)
    new = NewArchitecture(OWNER, "tiny", "nc: 1\n", 1, 0.1, [8.0, 16.0, 32.0], 1, {})
    architecture, _ = ArchitectureBook(store).create(new)
    dataset_id = datasets.create(OWNER, "digits", Blob("0" * 64, 1), file_name="digits.zip").dataset.id
    task = tasks.claim("ingest", "maker")
    assert task is not None
    manifest = blobs.put_bytes(b'{"v":1,"names":["a"],"images":[]}')
    ready = IngestResult(DatasetStatus.READY, manifest.sha256, manifest_hash=manifest.sha256, classes=("a",))
    tasks.finish_ingest(task.id, task.attempt, ready)
    return Books(settings, store, jobs, tasks, datasets, blobs, dataset_id, architecture.id)


def until(condition: Callable[[], Any], timeout_s: float = 30.0, pause_s: float = 0.02) -> None:
    """Wait for a condition; fail after a watchdog's time."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "watchdog"
        time.sleep(pause_s)
