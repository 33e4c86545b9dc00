"""The worker as a process: nudged through a real broker, drained by SIGTERM, survived by no child."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from api.domain import wire
from api.domain.fleet import WorkerBook
from api.domain.queueing import celery_app
from api.domain.records import Job, JobStatus
from api.loops.run import run_loops
from tests.support.books import Books, until
from tests.support.valkey import ValkeyProcess
from tests.worker.conftest import MakeSlot
from worker.app import build_app, parse_arguments
from worker.fleet import gpus_of_queue, make_slot
from worker.tasks import WorkerSlot, train_next

ROOT = Path(__file__).resolve().parents[2]
FAKE_WORKER = ROOT / "tests" / "support" / "fake_worker.py"
StartWorker = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start_worker(books: Books) -> Iterator[StartWorker]:
    """Return a function that starts a worker process whose trainer is the fake child."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*child_options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(FAKE_WORKER), books.settings.model_dump_json(), *child_options]
        with (books.settings.data_dir / "worker.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def nudge(books: Books) -> None:
    app = celery_app(books.settings)
    with app.connection_for_write() as connection:
        app.send_task(wire.TASK_TRAIN, queue="train.cpu", connection=connection)
    app.close()


def child_pid(books: Books, job: Job) -> int:
    path = books.settings.attempt_dir(job.id, 1) / "child.pid"
    until(path.exists)
    return int(path.read_text())


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_nudge_runs_a_job_and_sigterm_drains(
    books: Books, valkey: ValkeyProcess, start_worker: StartWorker
) -> None:
    worker = start_worker("--batch-s", "0.05")
    short = books.submit(epochs=1)
    # Two nudges for one job: the second finds nothing.
    nudge(books)
    nudge(books)
    until(lambda: books.jobs.get(short.id).status is JobStatus.SUCCEEDED)
    # The broker's connection is lost and found again.
    valkey.kill()
    valkey.start()
    long = books.submit(epochs=1000)
    nudge(books)
    pid = child_pid(books, long)
    until(lambda: len(books.jobs.epochs(long.id)) >= 1)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    assert not alive(pid)
    job = books.jobs.get(long.id)
    assert (job.status, job.failures, job.preemptions) == (JobStatus.QUEUED, 0, 1)
    assert job.pointer is not None


def test_another_worker_goes_on_where_a_drained_one_stopped(
    books: Books, start_worker: StartWorker, make_slot: MakeSlot
) -> None:
    worker = start_worker("--batch-s", "0.05")
    job = books.submit(epochs=8)
    nudge(books)
    pid = child_pid(books, job)
    until(lambda: len(books.jobs.epochs(job.id)) >= 2)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    assert not alive(pid)
    given_back = books.jobs.get(job.id)
    assert (given_back.status, given_back.failures, given_back.preemptions) == (JobStatus.QUEUED, 0, 1)
    assert given_back.pointer is not None and given_back.error is None
    assert given_back.pointer.epoch >= 2
    # At once: a drain is no failure to wait after.
    assert train_next(make_slot(number=7))
    ended = books.jobs.get(job.id)
    assert (ended.status, ended.failures, ended.preemptions) == (JobStatus.SUCCEEDED, 0, 1)
    first, second = books.jobs.attempts(job.id)
    assert first.worker != second.worker and second.worker == "testhost/train.cpu/7"
    assert [row.epoch for row in books.jobs.epochs(job.id)] == list(range(8))
    journal = (books.settings.attempt_dir(job.id, 2) / "events.jsonl").read_text().splitlines()
    resume = json.loads(journal[0])
    assert (resume["type"], resume["epoch"]) == ("resume", given_back.pointer.epoch)
    assert resume["after"] == given_back.pointer.after


def test_a_killed_worker_takes_its_child_along_and_another_goes_on(
    books: Books, start_worker: StartWorker
) -> None:
    worker = start_worker("--hold-at", "4")
    job = books.submit(epochs=12)
    with run_loops(books.settings, books.store):
        pid = child_pid(books, job)
        until(lambda: len(books.jobs.epochs(job.id)) == 4)
        worker.kill()
        worker.wait()
        until(lambda: not alive(pid))
        assert books.jobs.get(job.id).status is JobStatus.RUNNING
        start_worker()
        until(lambda: books.jobs.get(job.id).status is JobStatus.SUCCEEDED)
    ended = books.jobs.get(job.id)
    assert (ended.attempt, ended.failures) == (2, 1)
    assert [row.epoch for row in books.jobs.epochs(job.id)] == list(range(12))
    assert [attempt.code for attempt in books.jobs.attempts(job.id)] == ["WORKER_LOST", None]


LIFELINED = [sys.executable, "-m", "worker.app", "--queues", "train.cpu", "--slot", "0", "--lifeline"]


def environment_of(books: Books) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TRAINSHED_DATA_DIR": str(books.settings.data_dir),
        "TRAINSHED_DATABASE_URL": books.settings.sql_url,
        "TRAINSHED_REDIS_URL": books.settings.redis_url,
    }


def test_the_end_of_its_lifeline_drains_a_worker(books: Books) -> None:
    worker = subprocess.Popen(LIFELINED, stdin=subprocess.PIPE, env=environment_of(books), cwd=ROOT)
    assert worker.stdin is not None
    try:
        slots = _slots(books)
        until(lambda: "idle" in slots())
        # Idle, and without the training core: that is the children's.
        maps = Path(f"/proc/{worker.pid}/maps").read_text()
        assert "torch" not in maps and "cv2" not in maps
        worker.stdin.close()
        assert worker.wait(30) == 0
        assert slots() == ["gone"]
    finally:
        worker.stdin.close()
        worker.kill()
        worker.wait()


def test_a_worker_that_is_told_to_end_while_it_starts_ends_in_order(books: Books) -> None:
    with subprocess.Popen(LIFELINED, stdin=subprocess.DEVNULL, env=environment_of(books), cwd=ROOT) as worker:
        assert worker.wait(30) == 0
    assert _slots(books)() in ([], ["gone"])


def _slots(books: Books) -> Callable[[], list[str]]:
    book = WorkerBook(books.store)
    return lambda: [slot.state for slot in book.list()]


def test_settings_of_the_queue(books: Books) -> None:
    slot = WorkerSlot.open(books.settings, make_slot(("train.cpu",), 0))
    app = build_app(slot)
    assert {wire.TASK_TRAIN, wire.TASK_INGEST} <= app.tasks.keys()
    conf = app.conf
    assert (conf.worker_pool, conf.worker_concurrency, conf.worker_prefetch_multiplier) == ("threads", 1, 1)
    assert conf.worker_disable_prefetch and conf.task_ignore_result and not conf.task_acks_late
    assert conf.accept_content == ["json"] and not conf.worker_enable_remote_control
    assert conf.broker_connection_max_retries is None
    slot.close()


def test_arguments_and_queues() -> None:
    options = parse_arguments(["--queues", "train.cpu,ingest", "--slot", "2"])
    assert (options.queues, options.slot, options.lifeline) == ("train.cpu,ingest", 2, False)
    sizes = {name: gpus_of_queue(name) for name in ("train.cpu", "train.g1", "train.g8", "ingest")}
    assert sizes == {"train.cpu": 0, "train.g1": 1, "train.g8": 8, "ingest": 0}
