"""Redis killed, emptied and too small: what it holds can be rebuilt, so that no job and no event is lost."""

from __future__ import annotations

import os
import random
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from api.client import Client, Job
from api.domain import wire
from api.stack.broker import server_command
from tests.chaos.sim_stack import SimStack
from tests.chaos.watching import Watcher
from tests.support.figures import record, record_spread
from tests.support.members import until
from tests.support.valkey import ValkeyProcess, running_valkey

STEADY: dict[str, Any] = {"batches": 50, "batch_s": 0.02}
SHORT: dict[str, Any] = {"batches": 4, "batch_s": 0.01}
NOISY: dict[str, Any] = {"batches": 6, "batch_s": 0.02, "logs": 20, "log_bytes": 4000}


class Near:
    """Opens clients of one of several API processes."""

    def __init__(self, stack: SimStack, api: int) -> None:
        self._stack = stack
        self._api = api

    def client(self) -> Client:
        return self._stack.client(self._api)


def append_only_files(valkey: ValkeyProcess) -> dict[Path, int]:
    """Return the size of each file commands are appended to."""
    return {path: path.stat().st_size for path in (valkey.folder / "appendonlydir").glob("*.incr.aof")}


def kill_without_the_last_second(valkey: ValkeyProcess) -> int:
    """Kill the server and cut what it appended in the second before; return how many bytes those were."""
    before = append_only_files(valkey)
    time.sleep(1.0)  # the second that is lost
    valkey.kill()
    lost = sum(append_only_files(valkey).values()) - sum(before.values())
    for path, size in before.items():
        os.truncate(path, size)
    return lost


def step_s(lines: Sequence[dict[str, Any]], since: float, before: float) -> float:
    """Return the median seconds a batch took between two wall times, by a journal's own stamps."""
    told = [line for line in lines if line["type"] == "batch" and since <= line["ts"] <= before]
    pairs = [(a, b) for a, b in zip(told, told[1:], strict=False) if a["epoch"] == b["epoch"]]
    return float(statistics.median((b["ts"] - a["ts"]) / (b["batch"] - a["batch"]) for a, b in pairs))


def submit(stack: SimStack, api: int) -> tuple[Job, float]:
    """Submit a short job as any client would; return it and the seconds until 201."""
    began = time.monotonic()
    with stack.client(api) as client:
        answer = client.request("POST", "/v1/jobs", json=stack.request(epochs=1))
        assert answer.status_code == 201
        took = time.monotonic() - began
        return client.job(answer.json()["id"]), took


@pytest.mark.parametrize("away_s", [10.0, pytest.param(60.0, marks=pytest.mark.slow)])
def test_redis_dies_without_its_last_second_and_stays_away(tmp_path: Path, away_s: float) -> None:
    with SimStack(tmp_path / "data", workers=2, apis=2) as stack:
        stack.set_pace(**STEADY)
        (job,) = stack.submit(epochs=int(away_s) + 3)
        watchers = [Watcher(Near(stack, number % 2), job.id, give_up_s=90) for number in range(4)]
        began = time.time()
        stack.await_place(job.id, 0, 25)
        assert kill_without_the_last_second(stack.valkey) > 0, "nothing was appended in that second"
        killed = time.time()
        submitted: list[tuple[Job, float]] = []
        while time.time() < killed + away_s:
            submitted.append(submit(stack, len(submitted) % 2))
            if len(submitted) == 3:
                watchers += [Watcher(Near(stack, api), job.id, give_up_s=90) for api in (0, 1)]
            time.sleep(away_s / 6)  # the rest of the outage
        assert stack.state(job.id) == ("running", 1)
        back = time.time()
        stack.valkey.start()
        stack.await_state(submitted[0][0].id, "succeeded")
        record(
            f"Redis away {away_s:g} s: the first job submitted meanwhile ended, after",
            time.time() - back,
            "s",
        )
        stack.await_all([job, *(one for one, _ in submitted)], timeout_s=120)
        lines = stack.journal(job.id, 1)
        harm = step_s(lines, killed, back) / step_s(lines, began, killed)
        record(f"Redis away {away_s:g} s: time of a batch meanwhile, over that before", harm, "", 1.1)
        record_spread(
            f"Redis away {away_s:g} s: a submission is answered after",
            [took for _, took in submitted],
            "s",
            2.0,
        )
        assert harm < 2
        assert stack.assert_whole(job, attempts=1, watchers=watchers) == 1
        assert stack.assert_all_whole([one for one, _ in submitted]) == [1] * len(submitted)


def num_finished(stack: SimStack) -> int:
    """Return how many jobs have ended well."""
    return [status for status, _ in stack.states().values()].count("succeeded")


def await_finished(stack: SimStack, count: int) -> None:
    """Wait until so many jobs have ended well."""
    until(lambda: num_finished(stack) >= count, f"{count} jobs to end")


def num_claims(stack: SimStack) -> list[int]:
    """Return how often each job was begun, by the audit trail."""
    rows = stack.query(
        "SELECT job_id, count(*) FROM job_transitions WHERE to_status = 'running' GROUP BY job_id"
    )
    return [count for _, count in rows]


@pytest.mark.parametrize(("num_jobs", "flushes"), [(18, 5), pytest.param(54, 20, marks=pytest.mark.slow)])
def test_redis_is_emptied_again_and_again(tmp_path: Path, num_jobs: int, flushes: int) -> None:
    generator = random.Random(flushes)
    with SimStack(tmp_path / "data", workers=4) as stack, closing(stack.redis()) as server:
        stack.set_pace(**SHORT, hold=(0, 2))
        jobs = stack.submit(num_jobs, epochs=2)
        until(lambda: [s for s, _ in stack.states().values()].count("running") == 4, "four jobs to run")
        running = [job for job in jobs if stack.state(job.id)[0] == "running"]
        watchers = [Watcher(stack, job.id) for job in running]
        for job in running:
            stack.await_place(job.id, 0, 1)
        server.flushall()
        stack.set_pace(**SHORT)
        began = time.monotonic()
        for due in sorted(generator.sample(range(num_jobs - 6), flushes - 1)):
            await_finished(stack, due)
            time.sleep(generator.uniform(0, 0.2))  # a random moment
            server.flushall()
        last = time.monotonic()
        stack.await_all(jobs, timeout_s=120)
        title = f"FLUSHALL x {flushes}: {num_jobs} jobs ended, after"
        record(f"{title} the first", time.monotonic() - began, "s")
        record(f"{title} the last", time.monotonic() - last, "s")
        assert {status for status, _ in stack.states().values()} == {"succeeded"}
        assert num_claims(stack) == [1] * num_jobs
        looked_at = jobs if num_jobs > 18 else [*running, *generator.sample(jobs, 4)]
        assert stack.assert_all_whole(looked_at) == [1] * len(looked_at)
        for job, watcher in zip(running, watchers, strict=True):
            stack.assert_told(watcher.join(), job.id, epochs=2)


def _channel(server: Any) -> Any:
    # Any: redis-py leaves this method untyped.
    return server.pubsub()


@contextmanager
def evictions(valkey: ValkeyProcess) -> Iterator[list[str]]:
    """Collect the names of the keys that the server evicts."""
    found: list[str] = []
    ended = threading.Event()
    with closing(valkey.client()) as server, closing(_channel(server)) as channel:
        server.config_set("notify-keyspace-events", "Ee")
        channel.subscribe("__keyevent@0__:evicted")

        def listen() -> None:
            while not ended.is_set():
                message = channel.get_message(timeout=0.1)
                if message is not None and message["type"] == "message":
                    found.append(message["data"].decode())

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield found
        finally:
            ended.set()
            thread.join()


def set_up_as_the_stack_does(valkey: ValkeyProcess, max_memory: str) -> None:
    """Give a server the policy of the one-machine stack's own, in less memory."""
    command = server_command(Path("server"), Path("socket"), Path("folder"))
    with closing(valkey.client()) as server:
        server.config_set("maxmemory-policy", command[command.index("--maxmemory-policy") + 1])
        server.config_set("maxmemory", max_memory)


def test_a_redis_that_is_too_small_gives_up_streams_and_nothing_else(tmp_path: Path) -> None:
    with running_valkey() as valkey, evictions(valkey) as evicted:
        set_up_as_the_stack_does(valkey, "8mb")
        stack = SimStack(tmp_path / "data", workers=4, valkey=valkey, stream_max_events=500)
        with stack, closing(valkey.client()) as server:
            stack.set_pace(**NOISY)
            jobs = stack.submit(20, epochs=3)
            watchers = [Watcher(stack, job.id) for job in jobs[::4]]
            stack.await_all(jobs, timeout_s=120)
            written = sum(
                stack.attempt_folder(job.id, 1).joinpath("events.jsonl").stat().st_size for job in jobs
            )
            used = server.info("memory")["used_memory"]
            record("Redis at 8 MB: told by 20 jobs", written / 2**20, "MiB")
            record("Redis at 8 MB: used at the end", used / 2**20, "MiB", 8)
            record("Redis at 8 MB: streams evicted", len(evicted))
            assert written > 2 * 8 * 2**20
            assert evicted
            assert all(key.startswith(wire.events_key("")) for key in evicted), set(evicted)
            assert stack.assert_all_whole(jobs) == [1] * 20
            for job, watcher in zip(jobs[::4], watchers, strict=True):
                stack.assert_told(watcher.join(), job.id, epochs=3)
