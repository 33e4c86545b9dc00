"""Faults of the network between the members: late, cut, half-open and silent connections.

A proxy stands between workers, API and Redis, between them and PostgreSQL, and before the API's own port. A
job that is training while a fault lasts must end as if nothing had happened, to its watchers as well.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.client import Client, Job
from api.client.errors import IntegrityError, UnreachableError
from tests.chaos.sim_stack import PERIODS, SimStack
from tests.chaos.watching import Watcher
from tests.support.figures import record
from tests.support.members import until
from tests.support.postgres import PostgresServer
from tests.support.proxy import FaultProxy
from tests.support.valkey import running_valkey

PACE = {"batches": 10, "batch_s": 0.02}
FAULT_S = 1.5
EPOCHS = 4
Fault = Callable[[FaultProxy], object]
FAULTS: dict[str, Fault] = {
    "latency": lambda proxy: proxy.latency(0.05),
    "reset": lambda proxy: proxy.reset(),
    "refused": lambda proxy: proxy.refuse(),
    "half-open": lambda proxy: proxy.half_open(),
    "blackhole": lambda proxy: proxy.blackhole(),
}


SLOW = ("latency", "refused")


def faults(*left_out: str) -> list[Any]:
    """Return the names of the faults as parameters; those that teach least beside the others are slow."""
    return [
        pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name in FAULTS
        if name not in left_out
    ]


@dataclass(frozen=True)
class Rig:
    """A stack with a proxy in one of its pipes."""

    stack: SimStack
    proxy: FaultProxy

    def job_in_middle(self) -> tuple[Job, Watcher]:
        """Submit a job, let it train to the middle of epoch 1 and stand there."""
        self.stack.set_pace(**PACE, hold=(1, 5))
        (job,) = self.stack.submit(epochs=EPOCHS)
        watcher = Watcher(self.stack, job.id)
        self.stack.await_place(job.id, 1, 4)
        return job, watcher

    def let_go(self) -> None:
        """Let runs that stand go on."""
        self.stack.set_pace(**PACE)


@pytest.fixture(scope="module")
def over_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("redis") / "data"
    with running_valkey() as valkey, FaultProxy(valkey.socket) as proxy:
        through = {"redis_url": proxy.redis_url}
        stack = SimStack(folder, valkey=valkey, of_role={"worker": through, "api": through})
        with stack:
            yield Rig(stack, proxy)


@pytest.mark.parametrize("name", faults())
def test_a_bad_line_to_redis_costs_a_job_nothing(over_redis: Rig, name: str) -> None:
    stack, proxy = over_redis.stack, over_redis.proxy
    job, watcher = over_redis.job_in_middle()
    FAULTS[name](proxy)
    began = time.monotonic()
    over_redis.let_go()
    (second,) = stack.submit(epochs=2)
    record("a submission during a fault of Redis is answered after", time.monotonic() - began, "s", 2.0)
    time.sleep(FAULT_S)  # the fault's own length
    proxy.heal()
    healed = time.monotonic()
    stack.await_all([job, second])
    record(f"Redis {name}: both jobs ended, after the fault", time.monotonic() - healed, "s")
    assert stack.assert_whole(job, attempts=1, watchers=[watcher]) == 1
    assert stack.assert_whole(second, attempts=1) == 1


@pytest.fixture(scope="module")
def over_sql(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("sql") / "data"
    direct = postgres.new_database("pipes")
    with FaultProxy(postgres.folder / ".s.PGSQL.5432") as proxy:
        through = {"database_url": proxy.sql_url("trainshed", "pipes"), "sqlite_busy_timeout_s": 1.0}
        with SimStack(folder, database_url=direct, of_role={"worker": through, "api": through}) as stack:
            yield Rig(stack, proxy)


@pytest.mark.parametrize("name", faults())
def test_a_bad_line_to_the_database_costs_a_job_nothing(over_sql: Rig, name: str) -> None:
    job, watcher = over_sql.job_in_middle()
    FAULTS[name](over_sql.proxy)
    over_sql.let_go()
    time.sleep(FAULT_S)  # the fault's own length
    over_sql.proxy.heal()
    healed = time.monotonic()
    over_sql.stack.await_state(job.id, "succeeded")
    record(f"database {name}: the job ended, after the fault", time.monotonic() - healed, "s")
    assert over_sql.stack.assert_whole(job, attempts=1, watchers=[watcher]) == 1


def test_a_worker_cut_off_from_the_database_loses_its_job_and_nothing_else(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    direct = postgres.new_database("cut_off")
    with FaultProxy(postgres.folder / ".s.PGSQL.5432") as proxy:
        through = {"database_url": proxy.sql_url("trainshed", "cut_off")}
        stack = SimStack(tmp_path / "data", workers=1, database_url=direct, of_role={"worker": through})
        with stack:
            rig = Rig(stack, proxy)
            job, watcher = rig.job_in_middle()
            proxy.blackhole()
            began = time.monotonic()
            taken = stack.await_state(job.id, "queued")
            record("a worker cut off is taken its job after (lease 3 s)", taken, "s", PERIODS["lease_s"] + 5)
            rig.let_go()
            # The zombie goes on to the end of its run before it can learn that it is one.
            until(lambda: stack.children(job.id) == [], "the zombie's end")
            assert stack.state(job.id) == ("queued", 1)
            proxy.heal()
            stack.await_state(job.id, "succeeded")
            record("and another attempt has ended it after", time.monotonic() - began, "s")
            assert stack.assert_whole(job, attempts=2, watchers=[watcher]) == 2


@pytest.fixture(scope="module")
def over_http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("http") / "data"
    with SimStack(folder, workers=1) as stack:
        port = int(stack.members["api-0"].environment["TRAINSHED_PORT"])
        with FaultProxy(("127.0.0.1", port)) as proxy:
            yield Rig(stack, proxy)


class Through:
    """Opens clients that reach the service through the proxy."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig

    def client(self) -> Client:
        return self._rig.stack.client(url=self._rig.proxy.http_url)


@pytest.mark.parametrize("name", faults("half-open"))
def test_a_watcher_on_a_bad_line_misses_nothing(over_http: Rig, name: str) -> None:
    job, near = over_http.job_in_middle()
    far = Watcher(Through(over_http), job.id)
    until(lambda: len(far.events) > 5, "the first events")
    FAULTS[name](over_http.proxy)
    over_http.let_go()
    time.sleep(FAULT_S)  # the fault's own length
    over_http.proxy.heal()
    over_http.stack.assert_whole_after(job, watchers=[near, far])


@pytest.mark.slow
def test_a_watcher_whose_line_went_dead_comes_back(over_http: Rig) -> None:
    job, near = over_http.job_in_middle()
    far = Watcher(Through(over_http), job.id)
    until(lambda: len(far.events) > 5, "the first events")
    assert over_http.proxy.half_open() > 0
    over_http.let_go()
    began = time.monotonic()
    over_http.stack.assert_whole_after(job, watchers=[near])
    assert far.join(120)[-1].id == near.join()[-1].id
    record("a watcher on a dead line has noticed after", time.monotonic() - began, "s", 45)


def upload(url: str, token: str, content: bytes, *, timeout_s: float = 10.0) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(trust_env=False, timeout=timeout_s) as client:
        return client.put(f"{url}/v1/datasets", params={"name": "x"}, content=content, headers=headers)


def blobs(stack: SimStack) -> set[Path]:
    """Return every file of the store, finished or in the making."""
    return {path for path in stack.settings.blobs_dir.rglob("*") if path.is_file()}


def test_an_upload_that_is_cut_leaves_nothing_and_can_be_sent_again(over_http: Rig) -> None:
    stack, proxy = over_http.stack, over_http.proxy
    content = b"PK\x03\x04" + os.urandom(3 << 20)
    before = blobs(stack)
    generator = random.Random(4)
    for _ in range(5):
        proxy.limit(generator.randrange(1000, len(content)))
        with pytest.raises(httpx.TransportError):
            upload(proxy.http_url, stack.token, content)
    proxy.heal()
    until(lambda: blobs(stack) == before, "the pieces to be gone")
    proxy.latency(0.005)
    answer = upload(proxy.http_url, stack.token, content)
    proxy.heal()
    assert answer.status_code == 202, answer.text
    (made,) = blobs(stack) - before
    assert made.name == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("name", ["half-open", "blackhole"])
def test_an_upload_on_a_dead_line_leaves_nothing(over_http: Rig, name: str) -> None:
    stack, proxy = over_http.stack, over_http.proxy
    before = blobs(stack)
    sent = 0

    def pieces() -> Iterator[bytes]:
        nonlocal sent
        yield b"PK\x03\x04"
        for sent in range(1, 40):
            yield os.urandom(1 << 16)
            if sent == 20:
                until(lambda: blobs(stack) != before, "the first pieces to arrive")
                FAULTS[name](proxy)

    with pytest.raises(httpx.TransportError), httpx.Client(trust_env=False, timeout=1.0) as client:
        headers = {"Authorization": f"Bearer {stack.token}"}
        client.put(f"{proxy.http_url}/v1/datasets", params={"name": "x"}, content=pieces(), headers=headers)
    assert sent >= 20
    proxy.heal()
    until(lambda: blobs(stack) == before, "the pieces to be gone")


def test_a_download_that_is_cut_is_not_taken_for_the_file(over_http: Rig, tmp_path: Path) -> None:
    stack, proxy = over_http.stack, over_http.proxy
    stack.set_pace(batches=4, batch_s=0.0, logs=50, log_bytes=4000)
    (job,) = stack.submit(epochs=2)
    stack.await_state(job.id, "succeeded")
    with Through(over_http).client() as client:
        artifact = next(found for found in client.artifacts(job.id) if found.name == "events.jsonl")
        assert artifact.size_bytes > 1 << 20
    target = tmp_path / "events.jsonl"
    for num_bytes in (10_000, 300_000, artifact.size_bytes):
        proxy.limit(num_bytes, of_server=True)
        with Through(over_http).client() as client, pytest.raises((UnreachableError, IntegrityError)):
            client.download(job.id, artifact, target)
        assert list(tmp_path.iterdir()) == [] or not target.exists()
    proxy.heal()
    with Through(over_http).client() as client:
        client.download(job.id, artifact, target)
    assert hashlib.sha256(target.read_bytes()).hexdigest() == artifact.sha256
