"""Event streams as a client sees them: over a port, with ids, resume, ends and a server that stops."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.domain.blobs import BlobStore
from api.domain.failures import Failure, FailureCode
from api.domain.fleet import WorkerBook
from api.domain.records import Artifact
from tests.support.books import until
from tests.support.events import RunOnDisk, journal_line
from tests.support.service import World, a_job, client_of, new_world
from tests.support.shared import ROOT
from tests.support.valkey import ValkeyProcess, running_valkey


@dataclass(frozen=True)
class Message:
    event: str
    data: Any
    id: str | None


def messages(response: httpx.Response) -> Iterator[Message]:
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if line == "":
            if "event" in fields:
                data = json.loads(fields["data"]) if "data" in fields else None
                yield Message(fields["event"], data, fields.get("id"))
            fields = {}
        elif not line.startswith(":"):
            key, _, value = line.partition(": ")
            fields[key] = value


class Follower:
    """Reads a stream in a thread."""

    def __init__(self, client: httpx.Client, url: str, **headers: str) -> None:
        self.got: list[Message] = []
        self.status = 0
        self.headers = httpx.Headers()
        self._client, self._url, self._sent = client, url, headers
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._client.stream("GET", self._url, headers=self._sent, timeout=30) as response:
            self.status, self.headers = response.status_code, response.headers
            for message in messages(response):
                self.got.append(message)
                if self._stop.is_set():
                    return

    def ids(self) -> list[str]:
        return [item.id for item in self.got if item.id is not None and item.event != "end"]

    def leave_after_next(self) -> None:
        self._stop.set()

    def join(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.fixture(scope="module")
def valkey() -> Iterator[ValkeyProcess]:
    with running_valkey() as server:
        yield server


@pytest.fixture
def live_world(tmp_path: Path, books_in: str, valkey: ValkeyProcess) -> Iterator[World]:
    with new_world(tmp_path, valkey.url) as made:
        yield made


def expected(last: int, first: int = 1) -> list[str]:
    return [f"1-{seq}" for seq in range(first, last + 1)]


def test_a_run_is_followed_left_and_resumed_without_a_gap(live_world: World, valkey: ValkeyProcess) -> None:
    world = live_world
    with client_of(world) as client, valkey.client() as redis:
        job = a_job(world, client)
        run = RunOnDisk(world.settings.jobs_dir, job["id"])
        until(lambda: client.get("/readyz").json()["checks"]["redis"] == "ok")
        first = Follower(client, job["links"]["events"])
        until(lambda: bool(first.got))
        assert first.headers["content-type"].startswith("text/event-stream")
        assert first.headers["x-accel-buffering"] == "no"
        assert (first.got[0].event, first.got[0].id, first.got[0].data["status"]) == ("job", None, "queued")

        claim = world.claim()
        run.write(1, range(1, 6))
        run.ship(redis, 1, range(1, 6))
        until(lambda: len(first.ids()) == 5)
        until(lambda: any(item.event == "job" and item.data["status"] == "running" for item in first.got))
        first.leave_after_next()
        run.write(1, range(6, 11))
        run.ship(redis, 1, range(6, 11))
        first.join()
        seen = first.ids()

        second = Follower(client, job["links"]["events"], **{"Last-Event-ID": seen[-1]})
        until(lambda: len(seen) + len(second.ids()) >= 10)
        world.jobs.fail(
            job["id"], claim.attempt, Failure(FailureCode.CONFIG_INVALID, "no"), last_event_id="1-10"
        )
        second.join()
        assert seen + second.ids() == expected(10)
        assert second.got[-1].event == "end"
        assert second.got[-1].data["status"] == "failed"
        assert second.got[1].data["job"] == job["id"]

        done = client.get(job["links"]["events"], headers={"Last-Event-ID": "1-10"})
        assert (done.status_code, done.content) == (204, b"")
        replay = Follower(client, job["links"]["events"] + "?last_event_id=1-7")
        replay.join()
        assert replay.ids() == expected(10, first=8)
        bad = client.get(job["links"]["events"], headers={"Last-Event-ID": "yesterday"})
        assert (bad.status_code, bad.json()["code"]) == (422, "EVENT_ID_INVALID")


def test_a_job_that_ended_without_an_event_is_told_once(live_world: World) -> None:
    with client_of(live_world) as client:
        job = a_job(live_world, client)
        client.post(job["links"]["cancel"])
        told = Follower(client, job["links"]["events"])
        told.join()
        assert [item.event for item in told.got] == ["job", "end"]
        again = client.get(job["links"]["events"], headers={"Last-Event-ID": str(told.got[-1].id)})
        assert again.status_code == 204


def test_what_a_job_waits_for_is_told_when_it_changes(live_world: World) -> None:
    with client_of(live_world) as client:
        job = a_job(live_world, client)
        told = Follower(client, job["links"]["events"])
        until(lambda: [item.data["waiting_reason"] for item in told.got] == ["no_worker"])
        worker = {"queue": job["queue"], "host": "h", "pid": 1, "version": "1"}
        WorkerBook(live_world.store).announce("h/train.cpu/0", **worker)
        until(lambda: told.got[-1].data.get("waiting_reason") == "waiting_for_worker")
        client.post(job["links"]["cancel"])
        told.join()


@pytest.mark.usefixtures("books_in")
def test_a_finished_job_is_told_from_its_archive(tmp_path: Path) -> None:
    """Its folders are gone, and with them the journals; Redis is away: both attempts' blobs tell it all."""
    with new_world(tmp_path, retry_backoff_s=0.0) as world, client_of(world) as client:
        job = a_job(world, client)
        blobs = BlobStore(world.settings.blobs_dir)
        for attempt, code in ((1, FailureCode.CRASHED), (2, FailureCode.CONFIG_INVALID)):
            world.claim()
            text = "".join(journal_line(seq) for seq in range(1, 4))
            contents = {"events.jsonl": text, "train.log": f"log of attempt {attempt}"}
            stored = {name: blobs.put_bytes(content.encode()) for name, content in contents.items()}
            logs = [
                Artifact(name, "log", blob.sha256, blob.size_bytes, "text/plain")
                for name, blob in stored.items()
            ]
            world.jobs.fail(job["id"], attempt, Failure(code, "no"), artifacts=logs)
        told = Follower(client, job["links"]["events"])
        told.join()
        assert told.ids() == [f"{attempt}-{seq}" for attempt in (1, 2) for seq in range(1, 4)]
        assert told.got[-1].event == "end"
        for attempt in (1, 2):
            log = client.get(job["links"]["log"], params={"attempt": attempt})
            assert log.text == f"log of attempt {attempt}"


def test_lists_are_told_what_changes(live_world: World) -> None:
    with client_of(live_world) as client:
        job = a_job(live_world, client)
        follower = Follower(client, f"/v1/events?job={job['id']}&job={job['id']}")
        until(lambda: bool(follower.got))
        claim = live_world.claim()
        live_world.jobs.record_progress(job["id"], claim.attempt, {"epoch": 4})
        until(lambda: follower.got[-1].data["progress"] == {"epoch": 4})
        follower.leave_after_next()
        live_world.jobs.record_progress(job["id"], claim.attempt, {"epoch": 5})
        follower.join()
        assert {item.event for item in follower.got} == {"job"}
        assert all(item.id is None for item in follower.got)


def test_lists_show_figures_as_fresh_as_the_stream(live_world: World, valkey: ValkeyProcess) -> None:
    """The row is not touched: what is told comes from the stream, once a second however fast batches come."""
    world = live_world
    with client_of(world) as client, valkey.client() as redis:
        until(lambda: client.get("/readyz").json()["checks"]["redis"] == "ok")
        job = a_job(world, client)
        again = {"dataset": job["dataset"], "architecture": job["architecture"]}
        other = client.post("/v1/jobs", json=again).json()
        claim = world.claim()
        world.jobs.record_progress(job["id"], claim.attempt, {"epoch": 0, "batch": 0, "eta_s": 7.5})
        revision = client.get(job["links"]["self"]).json()["revision"]
        run = RunOnDisk(world.settings.jobs_dir, job["id"])
        url = f"/v1/events?job={job['id']}&job={other['id']}"
        follower = Follower(client, url)
        until(lambda: len(follower.got) >= 2)
        began = time.monotonic()
        for seq in range(1, 41):
            run.ship(redis, 1, range(seq, seq + 1), type="batch", epoch=2, batch=seq, batches=99, lr=[0.1])
            time.sleep(0.05)
        until(lambda: follower.got[-1].data["progress"].get("batch") == 40)
        told = [item.data for item in follower.got if item.data["id"] == job["id"]]
        assert told[-1]["progress"] == {
            "epoch": 2,
            "batch": 40,
            "batches": 99,
            "loss": None,
            "lr": [0.1],
            "images_per_s": None,
            "eta_s": 7.5,
        }
        assert {item["revision"] for item in told} == {revision}
        assert len(told) <= 2 + (time.monotonic() - began)
        run.ship(redis, 1, range(41, 44))
        late = Follower(client, url)
        until(lambda: len(late.got) >= 2)
        assert late.got[0].data["progress"]["batch"] == 40, "who comes later is told the same"
        assert all(item.id is None for item in [*follower.got, *late.got])
        follower.leave_after_next()
        late.leave_after_next()
        world.jobs.fail(job["id"], claim.attempt, Failure(FailureCode.CONFIG_INVALID, "no"))
        follower.join()
        late.join()
        assert follower.got[-1].data["status"] == "failed"


@pytest.mark.usefixtures("books_in")
def test_silence_is_broken_by_comments(tmp_path: Path) -> None:
    with new_world(tmp_path, sse_ping_s=0.1) as world, client_of(world) as client:
        job = a_job(world, client)
        with client.stream("GET", job["links"]["events"]) as response:
            lines = response.iter_lines()
            assert any(line == ": ping" for line in lines)


def test_the_server_stops_at_once_although_streams_are_open(live_world: World) -> None:
    world = live_world
    environment = {
        **os.environ,
        "TRAINSHED_DATA_DIR": str(world.settings.data_dir),
        "TRAINSHED_DATABASE_URL": world.settings.sql_url,
        "TRAINSHED_REDIS_URL": world.settings.redis_url,
        "TRAINSHED_PORT": str(free_port()),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "api.server"], cwd=ROOT, env=environment, stderr=subprocess.PIPE
    )
    try:
        address = f"http://127.0.0.1:{environment['TRAINSHED_PORT']}"
        with httpx.Client(base_url=address, headers=world.headers, timeout=20) as client:
            until(lambda: answers(client), timeout_s=60)
            job = a_job(world, client)
            follower = Follower(client, job["links"]["events"])
            until(lambda: bool(follower.got))
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            process.wait(20)
            follower.join()
        assert time.monotonic() - began < 10
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False
