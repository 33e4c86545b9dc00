"""Looks at attempts of a slot under test (folder, journal, stream, child), and runs its jobs in a thread."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from api.domain.records import Job
from tests.support.books import Books, until
from tests.support.valkey import ValkeyProcess
from worker.tasks import WorkerSlot, train_next


def attempt_folder(books: Books, job: Job, attempt: int) -> Path:
    return books.settings.attempt_dir(job.id, attempt)


def journal(books: Books, job: Job, attempt: int) -> list[dict[str, Any]]:
    text = (attempt_folder(books, job, attempt) / "events.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def streamed(valkey: ValkeyProcess, job: Job) -> list[tuple[str, dict[str, Any]]]:
    with valkey.client() as client:
        entries: Any = client.xrange(f"trainshed:events:{job.id}")
    return [(entry_id.decode(), json.loads(fields[b"event"])) for entry_id, fields in entries]


def assert_stream_equals_journals(books: Books, valkey: ValkeyProcess, job: Job, *attempts: int) -> None:
    told = []
    for attempt in attempts:
        for event in journal(books, job, attempt):
            seq = event.pop("seq")
            more = {"attempt": attempt} if event["type"] == "resume" else {}
            told.append((f"{attempt}-{seq}", {**event, "job": job.id, "id": f"{attempt}-{seq}", **more}))
    assert streamed(valkey, job) == told


@contextmanager
def running(slot: WorkerSlot) -> Iterator[threading.Thread]:
    """Run the next job in a thread, as the pool does, and see it end."""
    thread = threading.Thread(target=train_next, args=(slot,))
    thread.start()
    try:
        yield thread
    finally:
        thread.join(60)
        assert not thread.is_alive()


def child_pid(books: Books, job: Job, attempt: int = 1, name: str = "child.pid") -> int:
    path = attempt_folder(books, job, attempt) / name
    until(path.exists)
    return int(path.read_text())


def epochs_done(books: Books, job: Job) -> int:
    return len(books.jobs.epochs(job.id))


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
