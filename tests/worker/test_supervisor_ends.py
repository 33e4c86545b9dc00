"""Ends that come to a run from outside its training: deaths, hangs, its time, and disks that are full."""

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api.domain.records import Job, JobStatus, NewJob
from tests.support.attempts import (
    alive,
    attempt_folder,
    child_pid,
    epochs_done,
    running,
)
from tests.support.books import Books, until
from tests.worker.conftest import MakeSlot
from worker.cache import DatasetCache, DatasetFiles
from worker.tasks import train_next

DEATHS = {
    "segfault": ("os.kill(os.getpid(), 11)", "SEGFAULT", -11, JobStatus.QUEUED),
    "terminated": ("os.kill(os.getpid(), 15)", "KILLED", -15, JobStatus.QUEUED),
    "non-zero exit": ("sys.exit(3)", "CRASHED", 3, JobStatus.QUEUED),
    "out of memory": ("sys.exit(71)", "OUT_OF_MEMORY", 71, JobStatus.FAILED),
    "disk full": ("sys.exit(74)", "DISK_FULL", 74, JobStatus.QUEUED),
}


@pytest.mark.parametrize(("death", "code", "exit_code", "status"), DEATHS.values(), ids=list(DEATHS))
def test_each_death_has_its_code(
    books: Books, make_slot: MakeSlot, death: str, code: str, exit_code: int, status: JobStatus
) -> None:
    job = books.submit(epochs=1)
    train_next(make_slot(program=f"import os, sys; print('last words', flush=True); {death}"))
    ended = books.jobs.get(job.id)
    assert ended.status is status
    assert ended.error is not None
    assert (ended.error["code"], ended.error["evidence"]["log"]) == (code, "last words")
    assert ended.error["hint"]
    (attempt,) = books.jobs.attempts(job.id)
    assert (attempt.exit_code, attempt.code) == (exit_code, code)


@pytest.mark.parametrize(
    ("hold_at", "status", "failures"), [("0", JobStatus.FAILED, 1), ("2", JobStatus.QUEUED, 1)]
)
def test_a_kill_for_memory_is_told_by_the_kernel_s_counter(
    books: Books, make_slot: MakeSlot, tmp_path: Path, hold_at: str, status: JobStatus, failures: int
) -> None:
    counter = tmp_path / "memory.events"
    counter.write_text("oom_kill 3\n")
    slot = make_slot("--hold-at", hold_at)
    slot.oom_counter = lambda pid: counter
    job = books.submit(epochs=5)
    with running(slot):
        pid = child_pid(books, job)
        until(lambda: epochs_done(books, job) == int(hold_at))
        counter.write_text("oom_kill 4\n")
        os.kill(pid, signal.SIGKILL)
    ended = books.jobs.get(job.id)
    assert (ended.status, ended.failures) == (status, failures)
    assert ended.error is not None and ended.error["code"] == "OUT_OF_MEMORY"
    # Before the first batch it will not fit the next time either.
    assert (ended.error["evidence"]["batches_done"] > 0) is (hold_at != "0")


@pytest.mark.parametrize("frozen", [False, True], ids=["listens", "frozen"])
def test_a_run_that_hangs_is_ended_and_goes_on(books: Books, make_slot: MakeSlot, frozen: bool) -> None:
    slot = make_slot("--hold-at", "2", stall_s=0.6, stop_grace_s=1.0)
    job = books.submit(epochs=4)
    with running(slot):
        pid = child_pid(books, job)
        until(lambda: epochs_done(books, job) == 2)
        if frozen:
            os.kill(pid, signal.SIGSTOP)
    stalled = books.jobs.get(job.id)
    assert (stalled.status, stalled.failures) == (JobStatus.QUEUED, 1)
    assert stalled.error is not None and stalled.error["code"] == "STALLED"
    evidence = stalled.error["evidence"]
    assert (evidence["phase"], evidence["state"]) == ("training", "stopped" if frozen else "sleeping")
    assert evidence["silent_s"] >= 0.6 and "fake child" in evidence["log"]
    assert not alive(pid)
    until(lambda: train_next(slot))
    ended = books.jobs.get(job.id)
    assert (ended.status, ended.attempt) == (JobStatus.SUCCEEDED, 2)
    assert [row.epoch for row in books.jobs.epochs(job.id)] == list(range(4))


def test_a_cancel_of_a_run_that_hangs_is_a_cancel(books: Books, make_slot: MakeSlot) -> None:
    job = books.submit(epochs=4)
    with running(make_slot("--hold-at", "1", stall_s=0.6, stop_grace_s=2.0)):
        pid = child_pid(books, job)
        until(lambda: epochs_done(books, job) == 1)
        os.kill(pid, signal.SIGSTOP)
        until((attempt_folder(books, job, 1) / "stop.json").exists)
        books.jobs.cancel(job.id)
    assert books.jobs.get(job.id).status is JobStatus.CANCELLED


def submit_bounded(books: Books, max_runtime_s: int, **config: Any) -> Job:
    new = NewJob("pr_test", books.dataset_id, books.architecture_id, config, "0" * 64)
    return books.jobs.submit(replace(new, max_runtime_s=max_runtime_s)).job


def test_the_maximum_runtime_ends_a_run_and_keeps_what_it_made(books: Books, make_slot: MakeSlot) -> None:
    job = submit_bounded(books, 1, epochs=100_000)
    train_next(make_slot())
    ended = books.jobs.get(job.id)
    assert (ended.status, ended.attempt, ended.failures) == (JobStatus.FAILED, 1, 1)
    assert ended.error is not None and ended.error["code"] == "TIMED_OUT"
    assert ended.best is not None and ended.ran_s >= 1
    assert {"best.pt", "train.log"} <= {artifact.name for artifact in books.jobs.artifacts(job.id)}


def test_the_maximum_runtime_is_over_all_attempts(books: Books, make_slot: MakeSlot) -> None:
    job = submit_bounded(books, 60, epochs=3)
    with books.store.engine.begin() as connection:
        # As after attempts that were paused or drained.
        connection.exec_driver_sql("UPDATE jobs SET ran_s = 60.5")
    train_next(make_slot())
    ended = books.jobs.get(job.id)
    assert (ended.status, ended.attempt) == (JobStatus.FAILED, 1)
    assert ended.error is not None and ended.error["code"] == "TIMED_OUT"
    assert not attempt_folder(books, job, 1).exists()


def test_a_disk_that_is_full_at_the_start_has_its_code(books: Books, make_slot: MakeSlot) -> None:
    slot = make_slot()
    slot.cache = FullCache(books.settings.cache_dir, books.blobs)
    job = books.submit(epochs=1)
    train_next(slot)
    waiting = books.jobs.get(job.id)
    assert (waiting.status, waiting.failures) == (JobStatus.QUEUED, 1)
    assert waiting.error is not None and waiting.error["code"] == "DISK_FULL"


class FullCache(DatasetCache):
    @contextmanager
    def hold(self, manifest_hash: str) -> Iterator[DatasetFiles]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield


def test_orders_that_cannot_be_written_end_a_job_all_the_same(books: Books, make_slot: MakeSlot) -> None:
    job = books.submit(epochs=1000)
    with running(make_slot("--batch-s", "0.05", stop_grace_s=2.0)):
        child_pid(books, job)
        until(lambda: epochs_done(books, job) >= 1)
        # A folder of that name: the file's rename fails, as every write on a full disk.
        (attempt_folder(books, job, 1) / "stop.json" / "x").mkdir(parents=True)
        books.jobs.cancel(job.id)
    assert books.jobs.get(job.id).status is JobStatus.CANCELLED
