"""A claimed job through success, wishes, crashes and lost claims; rows, stream and journal agree."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from api.domain.records import JobStatus
from api.domain.runs import RunBook
from api.domain.store import Store, make_engine
from api.domain.tables import metadata
from tests.support.attempts import (
    alive,
    assert_stream_equals_journals,
    attempt_folder,
    child_pid,
    epochs_done,
    journal,
    running,
    streamed,
)
from tests.support.books import Books, until
from tests.support.valkey import ValkeyProcess
from tests.worker.conftest import FAKE_CHILD, MakeSlot
from worker.tasks import train_next

LOCK_ALL = {
    "sqlite": "SELECT 1",
    "postgresql": f"LOCK TABLE {', '.join(metadata.tables)} IN EXCLUSIVE MODE",
}


def test_nothing_to_claim_is_no_error(make_slot: MakeSlot) -> None:
    assert train_next(make_slot()) is False


def test_a_job_runs_to_its_end(books: Books, valkey: ValkeyProcess, make_slot: MakeSlot) -> None:
    submitted = books.submit(epochs=3)
    assert train_next(make_slot()) is True
    job = books.jobs.get(submitted.id)
    assert job.status is JobStatus.SUCCEEDED, job.error
    assert job.attempt == 1
    assert job.last_event_id == f"1-{len(journal(books, job, 1))}"
    assert job.best is not None and job.best["epoch"] == 2
    assert job.progress is not None
    assert (job.progress["epoch"], job.progress["epochs"], job.progress["last_epoch"]) == (2, 3, 2)
    assert [row.epoch for row in books.jobs.epochs(job.id)] == [0, 1, 2]
    assert job.pointer is not None and job.pointer.epoch == 3
    artifacts = {artifact.name: artifact for artifact in books.jobs.artifacts(job.id)}
    assert artifacts.keys() == {"best.pt", "events.jsonl", "train.log"}
    assert books.blobs.read_bytes(artifacts["best.pt"].sha256) == b"weights of attempt 1"
    assert_stream_equals_journals(books, valkey, job, 1)
    # Only the newest checkpoint is left, which is the best and the pointed-to as well.
    checkpoints = attempt_folder(books, job, 1) / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["e0003-b000000.ckpt"]
    assert [step.to_status for step in books.jobs.transitions(job.id)] == ["queued", "running", "succeeded"]


def test_a_tensorboard_file_is_left_by_option(books: Books, make_slot: MakeSlot) -> None:
    submitted = books.submit(epochs=2)
    assert train_next(make_slot(tensorboard=True)) is True
    (kept,) = [artifact for artifact in books.jobs.artifacts(submitted.id) if ".tfevents." in artifact.name]
    assert b"metrics/mAP_0.5" in books.blobs.read_bytes(kept.sha256)


def test_what_the_child_is_told(books: Books, make_slot: MakeSlot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINSHED_DATABASE_URL_OF_A_TEST", "secret")
    job = books.submit(epochs=1)
    train_next(make_slot())
    config = json.loads((attempt_folder(books, job, 1) / "config.json").read_text())
    assert (config["v"], config["job"], config["attempt"], config["resume"]) == (1, job.id, 1, None)
    assert config["config"] == {"epochs": 1}
    assert config["architecture"] == {"name": "tiny", "text": "nc: 1\n"}
    assert Path(config["dataset"]["manifest"]).is_file()
    assert Path(config["settings"]["cache_dir"]).is_dir()
    assert config["settings"]["device"] == "cpu"
    environment = json.loads((attempt_folder(books, job, 1) / "environment.json").read_text())
    assert environment["OMP_NUM_THREADS"] == str(books.settings.train_threads)
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert not [name for name in environment if name.startswith("TRAINSHED_")]


@pytest.mark.parametrize("deaf", [False, True])
def test_cancel(books: Books, valkey: ValkeyProcess, make_slot: MakeSlot, deaf: bool) -> None:
    options = ["--batch-s", "0.05", "--helper", *(["--deaf"] if deaf else [])]
    slot = make_slot(*options)
    # Frozen settings are copied: the grace of a child that does not listen, in a blink.
    slot.settings = slot.settings.model_copy(update={"stop_grace_s": 0.5})
    job = books.submit(epochs=1000)
    with running(slot):
        helper = child_pid(books, job, name="helper.pid")
        until(lambda: epochs_done(books, job) >= 1)
        books.jobs.cancel(job.id)
    ended = books.jobs.get(job.id)
    assert ended.status is JobStatus.CANCELLED
    assert not alive(child_pid(books, job))
    assert not alive(helper)
    assert_stream_equals_journals(books, valkey, job, 1)
    (attempt,) = books.jobs.attempts(job.id)
    assert attempt.exit_code == (-signal.SIGKILL if deaf else 75)


def test_stop_keeps_the_best(books: Books, make_slot: MakeSlot) -> None:
    job = books.submit(epochs=1000)
    with running(make_slot("--batch-s", "0.05")):
        until(lambda: epochs_done(books, job) >= 1)
        books.jobs.stop(job.id)
    ended = books.jobs.get(job.id)
    assert ended.status is JobStatus.SUCCEEDED
    assert "best.pt" in {artifact.name for artifact in books.jobs.artifacts(job.id)}


def test_pause_then_go_on(books: Books, valkey: ValkeyProcess, make_slot: MakeSlot) -> None:
    job = books.submit(epochs=6)
    with running(make_slot("--hold-at", "3")):
        until(lambda: epochs_done(books, job) >= 3)
        books.jobs.pause(job.id)
    paused = books.jobs.get(job.id)
    assert paused.status is JobStatus.PAUSED
    assert paused.pointer is not None and paused.pointer.epoch == 3
    books.jobs.activate(job.id)
    train_next(make_slot())
    ended = books.jobs.get(job.id)
    assert ended.status is JobStatus.SUCCEEDED
    assert [row.epoch for row in books.jobs.epochs(job.id)] == list(range(6))
    assert_stream_equals_journals(books, valkey, job, 1, 2)


def test_a_killed_child_goes_on_from_the_pointer(
    books: Books, valkey: ValkeyProcess, make_slot: MakeSlot
) -> None:
    slot = make_slot("--hold-at", "3")
    job = books.submit(epochs=6)
    with running(slot):
        pid = child_pid(books, job)
        until(lambda: epochs_done(books, job) >= 3)
        os.kill(pid, signal.SIGKILL)
    waiting = books.jobs.get(job.id)
    assert waiting.status is JobStatus.QUEUED
    assert waiting.failures == 1
    assert waiting.error is not None and waiting.error["code"] == "KILLED"
    assert waiting.pointer is not None
    until(lambda: train_next(slot))
    ended = books.jobs.get(job.id)
    assert ended.status is JobStatus.SUCCEEDED
    assert ended.attempt == 2
    first = journal(books, job, 2)[0]
    assert (first["type"], first["epoch"]) == ("resume", waiting.pointer.epoch)
    assert first["after"] == waiting.pointer.after
    rows = books.jobs.epochs(job.id)
    assert [row.epoch for row in rows] == list(range(6))
    assert {row.attempt for row in rows[: waiting.pointer.epoch]} == {1}
    assert {row.attempt for row in rows[waiting.pointer.epoch :]} == {2}
    assert_stream_equals_journals(books, valkey, job, 1, 2)


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("torn")], ids=["gone", "torn"])
def test_a_lost_checkpoint_means_from_the_beginning(
    books: Books, make_slot: MakeSlot, damage: Callable[[Path], object]
) -> None:
    slot = make_slot("--die-in-attempt", "1", "--die-after-epoch", "1")
    job = books.submit(epochs=3)
    train_next(slot)
    for path in books.settings.jobs_dir.rglob("*.ckpt"):
        damage(path)
    until(lambda: train_next(slot))
    assert journal(books, job, 2)[0]["type"] == "start"
    rows = books.jobs.epochs(job.id)
    assert [(row.epoch, row.attempt) for row in rows] == [(0, 2), (1, 2), (2, 2)]


@pytest.mark.parametrize("silent", [1, 2])
def test_a_run_killed_before_its_journal_has_a_line(books: Books, make_slot: MakeSlot, silent: int) -> None:
    program = SILENT_DEATH.format(silent=silent, fake_child=str(FAKE_CHILD))
    # Another attempt dies as well, of old age: its pointer is what counts.
    slot = make_slot("--die-in-attempt", str(3 - silent), "--die-after-epoch", "1", program=program)
    job = books.submit(epochs=3)
    for _ in range(3):
        until(lambda: train_next(slot))
    ended = books.jobs.get(job.id)
    assert (ended.status, ended.attempt, ended.failures) == (JobStatus.SUCCEEDED, 3, 2)
    assert not (attempt_folder(books, job, silent) / "events.jsonl").exists()
    pointed = [event for event in journal(books, job, 3 - silent) if event["type"] == "checkpoint"][-1]
    first = journal(books, job, 3)[0]
    # The checkpoint that no line tells of is nothing to go on from.
    assert (first["type"], first["epoch"]) == ("resume", 2)
    assert first["after"] == f"{3 - silent}-{pointed['seq']}"
    assert [row.epoch for row in books.jobs.epochs(job.id)] == [0, 1, 2]


SILENT_DEATH = """
import json, os, pathlib, runpy, signal, sys
folder = pathlib.Path(sys.argv[-1])
if json.loads((folder / "config.json").read_text())["attempt"] == {silent}:
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "e0009-b000000.ckpt").write_text('{{"epoch": 9}}')
    os.kill(os.getpid(), signal.SIGKILL)
runpy.run_path({fake_child!r}, run_name="__main__")
"""


def test_a_best_that_is_lost_is_nothing_to_stop_with(books: Books, make_slot: MakeSlot) -> None:
    job = books.submit(epochs=3)
    train_next(make_slot("--die-in-attempt", "1", "--die-after-epoch", "1"))
    for path in books.settings.jobs_dir.rglob("*.ckpt"):
        path.unlink()
    until(books.jobs.count_due)
    with running(make_slot("--batch-s", "0.5")):
        child_pid(books, job, 2)
        books.jobs.stop(job.id)
    ended = books.jobs.get(job.id)
    assert (ended.status, ended.attempt, ended.best) == (JobStatus.CANCELLED, 2, None)


@pytest.mark.parametrize(
    ("code", "exit_code", "status"),
    [("DATASET_INVALID", 65, JobStatus.FAILED), ("INTERNAL", 70, JobStatus.QUEUED)],
)
def test_a_users_error_is_final_and_ours_is_not(
    books: Books, make_slot: MakeSlot, code: str, exit_code: int, status: JobStatus
) -> None:
    job = books.submit(epochs=1)
    train_next(make_slot("--fail", str(exit_code), code))
    ended = books.jobs.get(job.id)
    assert ended.status is status
    assert ended.error is not None
    assert (ended.error["code"], ended.error["message"]) == (code, "as asked")
    assert ended.error["hint"]
    (attempt,) = books.jobs.attempts(job.id)
    assert (attempt.exit_code, attempt.code) == (exit_code, code)


def test_a_fenced_supervisor_kills_its_child_and_writes_nothing(
    books: Books, valkey: ValkeyProcess, make_slot: MakeSlot
) -> None:
    job = books.submit(epochs=1000)
    with capture_logs() as logs, running(make_slot("--batch-s", "0.05", "--helper")):
        pid, helper = child_pid(books, job), child_pid(books, job, name="helper.pid")
        until(lambda: epochs_done(books, job) >= 1)
        # What the reaper does to a claim that it saw standing still.
        until(lambda: books.jobs.expire(books.jobs.held()[0]) is not None)
        second = books.jobs.claim("train.cpu", "another")
        while second is None:
            time.sleep(0.02)
            second = books.jobs.claim("train.cpu", "another")
    assert not alive(pid)
    assert not alive(helper)
    now = books.jobs.get(job.id)
    assert (now.status, now.attempt, now.worker) == (JobStatus.RUNNING, 2, "another")
    assert {artifact.attempt for artifact in books.jobs.artifacts(job.id)} == set()
    (told,) = [entry for entry in logs if entry.get("reason") == "the claim is lost"]
    assert (told["job"], told["attempt"], told["log_level"]) == (job.id, 1, "warning")


def test_redis_flushed_and_restarted_in_mid_run(
    books: Books, valkey: ValkeyProcess, make_slot: MakeSlot
) -> None:
    job = books.submit(epochs=14)
    with running(make_slot("--batch-s", "0.02", "--batches", "3", "--hold-at", "10")):
        until(lambda: len(streamed(valkey, job)) > 5)
        with valkey.client() as client:
            client.flushall()
        until(lambda: len(streamed(valkey, job)) > 10)
        valkey.kill()
        # Neither training nor rows wait for it.
        until(lambda: epochs_done(books, job) == 10)
        valkey.start()
        until(lambda: len(streamed(valkey, job)) == len(journal(books, job, 1)))
        (attempt_folder(books, job, 1) / "go").touch()
    ended = books.jobs.get(job.id)
    assert ended.status is JobStatus.SUCCEEDED
    assert [row.epoch for row in books.jobs.epochs(job.id)] == list(range(14))
    assert_stream_equals_journals(books, valkey, job, 1)


def test_draining_gives_the_job_back_without_blame(books: Books, make_slot: MakeSlot) -> None:
    slot = make_slot("--batch-s", "0.05")
    job = books.submit(epochs=1000)
    with running(slot):
        until(lambda: epochs_done(books, job) >= 1)
        slot.drain.set()
    given_back = books.jobs.get(job.id)
    assert given_back.status is JobStatus.QUEUED
    assert (given_back.failures, given_back.preemptions) == (0, 1)
    assert given_back.pointer is not None
    last = [event for event in journal(books, job, 1) if event["type"] == "checkpoint"][-1]
    assert given_back.pointer.after == f"1-{last['seq']}"
    assert train_next(slot) is False


def test_a_database_away_delays_rows_and_nothing_else(books: Books, make_slot: MakeSlot) -> None:
    impatient = Store(make_engine(books.settings.sql_url, busy_timeout_s=0.05))
    slot = make_slot("--batch-s", "0.02", "--hold-at", "2")
    slot.jobs = RunBook(impatient, books.settings)
    job = books.submit(epochs=12)
    with running(slot):
        until(lambda: epochs_done(books, job) == 2)
        with books.store.engine.connect() as locker:
            # Nobody else can write until this ends: on SQLite the engine begins IMMEDIATE.
            locker.exec_driver_sql(LOCK_ALL[books.store.dialect])
            (attempt_folder(books, job, 1) / "go").touch()
            until((attempt_folder(books, job, 1) / "result.json").exists)
            assert locker.exec_driver_sql("SELECT count(*) FROM epoch_metrics").scalar() == 2
            locker.rollback()
    ended = books.jobs.get(job.id)
    assert (ended.status, ended.attempt) == (JobStatus.SUCCEEDED, 1)
    assert [row.epoch for row in books.jobs.epochs(job.id)] == list(range(12))
    impatient.close()
