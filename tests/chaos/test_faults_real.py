"""Faults of the whole service while it really trains: killed processes, a lost Valkey, cancels, stops.

One small job is trained undisturbed. Each fault strikes an equal job in the middle of an epoch, and must
leave the same epochs and the same weights to the bit.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from tests.chaos.lab import (
    CONFIG,
    Lab,
    Undisturbed,
    assert_as_undisturbed,
    assert_told_whole,
    await_next_attempt,
    batches_behind,
    flat,
    transitions,
    weights_of,
)
from tests.chaos.real_stack import LEASE_S, Follower, RealStack, interrupt, living, until
from tests.support.figures import record
from tests.support.shapes import TINY_MODEL, write_shapes
from tests.support.shared import ROOT


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    root = tmp_path_factory.mktemp("chaos")
    write_shapes(root / "shapes", num_train=100, num_val=4)
    with zipfile.ZipFile(root / "shapes.zip", "w") as archive:
        for path in sorted((root / "shapes").rglob("*.*")):
            archive.write(path, path.relative_to(root / "shapes"))
    stack = RealStack(root / "data")
    try:
        print(f"up after {stack.ensure_up():.1f} s")
        with stack.client() as client:
            dataset = client.push_dataset(root / "shapes.zip", "shapes")
            assert client.wait_for_dataset(dataset.id, timeout_s=60).status == "ready"
            yield Lab(stack, dataset.id, client.push_architecture(TINY_MODEL, "tiny").id)
    finally:
        stack.end()


@pytest.fixture
def lab(running: Lab) -> Lab:
    running.stack.ensure_up()
    return running


@pytest.fixture(scope="module")
def undisturbed(running: Lab, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    running.stack.ensure_up()
    began = time.monotonic()
    with running.stack.client() as client:
        job = running.submit(client)
        assert client.wait_for_job(job.id, timeout_s=100).status == "succeeded"
        tensors = running.tensors(client, job, tmp_path_factory.mktemp("undisturbed"))
        assert {name.split(".")[0] for name in tensors} >= {"best", "last", "model", "ema", "optimizer"}
        print(f"undisturbed: {time.monotonic() - began:.1f} s, {len(tensors)} tensors to compare")
        return Undisturbed(client.metrics(job.id), running.figures(client, job), tensors)


def test_a_killed_trainer_goes_on_from_its_checkpoint(
    lab: Lab, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    with lab.stack.client() as client:
        job = lab.submit(client)
        follower = Follower(lab.stack, job)
        lab.await_middle(job, epoch=0)
        trainer = lab.stack.trainer()
        lab.await_middle(job)
        since = time.monotonic()
        trainer.kill()
        print(f"trainer killed: {await_next_attempt(lab, job, since, what='trainer', target_s=5.0)}")
        *_, struck = (line for line in lab.stack.journal(job.id, 1) if line["type"] == "batch")
        print(f"it struck in epoch {struck['epoch']}, after batch {struck['batch']} of {struck['batches']}")
        assert_told_whole(follower, lab, attempts=2)
        assert_as_undisturbed(lab, client, job, undisturbed, tmp_path, attempts=2)
        assert ("queued", "retry after KILLED") in transitions(client, job)


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_its_job_goes_on(
    lab: Lab, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    with lab.stack.client() as client:
        job = lab.submit(client)
        follower = Follower(lab.stack, job)
        lab.await_middle(job, epoch=0)
        trainer, worker = lab.stack.trainer(), lab.stack.train_worker()
        lab.await_middle(job)
        since = time.monotonic()
        worker.kill()
        orphaned = until(lambda: not living([trainer]), "the end of the trainer", 3)
        record("real worker killed: its trainer gone", orphaned, "s", 1.0)
        print(f"worker killed: its trainer was gone after {orphaned:.2f} s")
        told = await_next_attempt(lab, job, since, what="real worker", target_s=LEASE_S + 5)
        print(f"worker killed: {told} (the lease is {LEASE_S:g} s)")
        assert_told_whole(follower, lab, attempts=2)
        assert_as_undisturbed(lab, client, job, undisturbed, tmp_path, attempts=2)
        assert ("queued", "retry after WORKER_LOST") in transitions(client, job)


def test_valkey_flushed_and_killed_loses_no_event(lab: Lab, undisturbed: Undisturbed, tmp_path: Path) -> None:
    key = "trainshed:events:"
    with lab.stack.client() as client:
        job = lab.submit(client)
        follower = Follower(lab.stack, job)
        lab.await_middle(job, epoch=0)
        with lab.stack.redis() as server:
            server.flushall()
            refilled = until(lambda: server.xlen(key + job.id) > 0, "the stream, written anew")
        lab.await_middle(job, epoch=1)
        since = time.monotonic()
        lab.stack.one("valkey-server", "--unixsocket").kill()
        back = until(lambda: "valkey is ready again" in lab.stack.output, "Valkey's return")

        before = lab.stack.journal(job.id, 1)[-1]["seq"]

        def is_shipped() -> bool:
            with lab.stack.redis() as server:
                newest = server.xrevrange(key + job.id, count=1)
            return bool(newest) and int(newest[0][0].split(b"-")[1]) >= before

        until(is_shipped, "events in the new Valkey")
        print(
            f"stream refilled {refilled:.2f} s after FLUSHALL; Valkey back {back:.1f} s after its kill,"
            f" events of that moment in it after {time.monotonic() - since:.1f} s"
        )
        assert_told_whole(follower, lab, attempts=1)
        assert_as_undisturbed(lab, client, job, undisturbed, tmp_path, attempts=1)


def test_a_pipeline_waits_for_a_worker_and_learns_of_the_cancel(lab: Lab, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**CONFIG, "epochs": 1000}))
    submit = ["jobs", "submit", "-d", lab.dataset, "-m", lab.architecture, "--config", str(config), "--wait"]
    command = [sys.executable, "-m", "api.cli.main", "--data", str(lab.stack.folder), *submit]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRAINSHED_")}
    worker = lab.stack.train_worker()
    worker.suspend()
    pipeline = subprocess.Popen(
        command, cwd=ROOT, env=kept, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        with lab.stack.client() as client:
            until(lambda: any(not job.is_final for job in client.jobs()), "the job")
            job = next(job for job in client.jobs() if not job.is_final)

            def reason() -> str | None:
                found: str | None = client.job(job.id).as_json()["waiting_reason"]
                return found

            assert reason() in ("waiting_for_worker", "no_worker")
            alone = until(lambda: reason() == "no_worker", "the absence of a worker to be told")
            worker.resume()
            lab.await_middle(job, epoch=0)
            assert reason() is None
            trainer = lab.stack.trainer()
            client.cancel(job.id)
            final = until(lambda: client.job(job.id).is_final, "the end of a cancelled job", 5)
            assert client.job(job.id).status == "cancelled" and living([trainer]) == []
            told = until(lambda: pipeline.poll() is not None, "the end of the waiting command", 10)
        print(
            f"no_worker told after {alone:.1f} s; cancelled after {final:.2f} s, pipeline {told:.2f} s later"
        )
    finally:
        worker.resume()
        pipeline.kill()
        output, _ = pipeline.communicate()
    assert pipeline.returncode == 4, output
    assert "waiting_for_worker" in output or "no_worker" in output, output


def test_a_paused_job_that_is_stopped_delivers_its_best(lab: Lab, tmp_path: Path) -> None:
    with lab.stack.client() as client:
        job = lab.submit(client, epochs=1000)
        lab.await_middle(job, epoch=0)
        lab.await_middle(job)
        client.pause(job.id)
        until(lambda: client.job(job.id).status == "paused", "the pause")
        assert client.artifacts(job.id) and not weights_of(client, job)
        best = client.job(job.id).as_json()["best"]["epoch"]
        since = time.monotonic()
        told = client.stop(job.id)
        assert (told.status, told.wish) == ("queued", "stop")
        ended = client.wait_for_job(job.id, timeout_s=60)
        record("paused real job stopped: weights stored", time.monotonic() - since, "s")
        assert (ended.status, ended.attempt) == ("succeeded", 2), ended.error
        assert ended.as_json()["best"]["epoch"] >= best
        (found,) = weights_of(client, job)
        kept = torch.load(client.download(job.id, found, tmp_path / "best.pt"), weights_only=True)
        assert flat(kept["model"], "model")


@pytest.mark.slow
def test_a_worker_told_to_end_hands_over_real_training(
    lab: Lab, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    with lab.stack.client() as client:
        job = lab.submit(client)
        follower = Follower(lab.stack, job)
        lab.await_middle(job, epoch=0)
        trainer, worker = lab.stack.trainer(), lab.stack.train_worker()
        lab.await_middle(job)
        since = time.monotonic()
        worker.terminate()
        until(lambda: not living([trainer, worker]), "the end of the worker", 20)
        record("real worker told to end: it has ended", time.monotonic() - since, "s")
        record("real worker told to end: the checkpoint is old", batches_behind(lab, job), "batches", 1)
        assert batches_behind(lab, job) <= 1
        assert_told_whole(follower, lab, attempts=2)
        assert_as_undisturbed(lab, client, job, undisturbed, tmp_path, attempts=2)
        assert ("queued", "drained") in transitions(client, job)
        assert client.job(job.id).as_json()["failures"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_stopped_stack_checkpoints_and_the_next_start_goes_on(
    lab: Lab, undisturbed: Undisturbed, tmp_path: Path, how: signal.Signals
) -> None:
    with lab.stack.client() as client:
        job = lab.submit(client)
    lab.await_middle(job, epoch=0)
    family = lab.stack.family()
    lab.await_middle(job)
    since = time.monotonic()
    lab.stack.process.send_signal(how)
    until(lambda: lab.stack.process.poll() is not None, "the end of the stack", 20)
    record(f"real stack, {how.name}: all has ended", time.monotonic() - since, "s", 10.0)
    assert lab.stack.process.returncode == 0 and living(family) == [], lab.stack.output
    sql = "SELECT status, failures, preemptions, pointer FROM jobs WHERE id = ?"
    ((status, failures, preemptions, pointer),) = lab.stack.query(sql, job.id)
    assert (status, failures, preemptions) == ("queued", 0, 1)
    saved = [event for event in lab.stack.journal(job.id, 1) if event["type"] == "checkpoint"][-1]
    place = json.loads(pointer)
    assert (place["epoch"], place["batch"]) == (saved["epoch"], saved["batch"])
    assert (lab.stack.attempt_folder(job.id, 1) / saved["path"]).is_file()
    record(f"real stack, {how.name}: the checkpoint is old", batches_behind(lab, job), "batches", 1)
    assert batches_behind(lab, job) <= 1
    lab.stack.ensure_up()
    with lab.stack.client() as client:
        follower = Follower(lab.stack, job)
        assert_told_whole(follower, lab, attempts=2)
        assert_as_undisturbed(lab, client, job, undisturbed, tmp_path, attempts=2)
        assert client.job(job.id).as_json()["failures"] == 0


def test_a_second_interrupt_kills_the_whole_tree(lab: Lab) -> None:
    with lab.stack.client() as client:
        job = lab.submit(client, epochs=1000)
    lab.await_middle(job, epoch=0)
    family = lab.stack.family()
    # A trainer that answers nothing: only a kill can end the stop before its grace is over.
    lab.stack.trainer().suspend()
    interrupt(lab.stack.process)
    until(lambda: "a second Ctrl-C kills" in lab.stack.output, "the polite stop")
    assert lab.stack.process.poll() is None
    interrupt(lab.stack.process)
    killed = until(lambda: lab.stack.process.poll() is not None, "the end of the stack", 5)
    print(f"second Ctrl-C: {len(family)} processes gone after {killed:.2f} s")
    assert living(family) == [], lab.stack.output
    assert mentioning(str(lab.stack.folder)) == []
    assert lab.stack.query("PRAGMA integrity_check") == [("ok",)]


def mentioning(text: str) -> list[list[str]]:
    """Return the command lines that speak of a folder, this process's own aside."""
    lines = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline", "pid"])]
    return [line for line in lines if any(text in word for word in line)]
