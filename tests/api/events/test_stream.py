"""A watcher is told everything, in order, once: whatever the hub drops, Redis forgets or a zombie writes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from api.domain.wire import EventId
from api.events.history import FIRST, History, LiveStreams
from api.events.hub import Hub, Look, end_tasks
from api.events.stream import Frame, JobWatch, is_read_up
from tests.support.events import RunOnDisk
from tests.support.valkey import ValkeyProcess, running_valkey

JOB = "job_1"


class Watched:
    """A hub over one job whose row is a dictionary, and a watcher's frames as they arrive."""

    def __init__(self, hub: Hub, run: RunOnDisk, row: dict[str, Any]) -> None:
        self.hub, self.run, self.row = hub, run, row

    def change(self, **values: Any) -> None:
        self.row.update(values, revision=self.row["revision"] + 1)

    def history(self) -> History:
        return History(self.run.attempts_dir, JOB, self.hub.streams)

    @contextlib.asynccontextmanager
    async def watch(self, after: EventId = FIRST) -> AsyncIterator[list[Frame]]:
        frames: list[Frame] = []
        ready = asyncio.Event()

        async def follow() -> None:
            async with self.hub.subscribe([JOB]) as subscription:
                ready.set()
                watch = JobWatch(self.history(), dict(self.row), after)
                async for frame in watch.frames(subscription, ping_s=30):
                    frames.append(frame)

        task = asyncio.create_task(follow())
        try:
            await ready.wait()
            yield frames
        finally:
            await end_tasks([task])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.01)


def ids(frames: list[Frame]) -> list[str]:
    return [frame.id for frame in frames if frame.id is not None and frame.event != "end"]


def run_watched(
    tmp_path: Path, url: str, scenario: Callable[[Watched], Awaitable[None]], *, queue_limit: int = 2000
) -> None:
    row = {"id": JOB, "status": "running", "attempt": 1, "revision": 1, "wish": None, "error": None}

    async def main() -> None:
        hub = Hub(
            LiveStreams(url, timeout_s=2),
            lambda jobs: {JOB: dict(row)},
            poll_s=0.05,
            quiet_s=0.3,
            retry_s=0.05,
            queue_limit=queue_limit,
        )
        await hub.start()
        try:
            await until(lambda: hub.streams.up or "nowhere" in url)
            await scenario(Watched(hub, RunOnDisk(tmp_path, JOB), row))
        finally:
            await hub.stop()

    asyncio.run(main())


@pytest.fixture
def valkey():
    with running_valkey() as server:
        yield server


def expected(attempt: int, last: int) -> list[str]:
    return [f"{attempt}-{seq}" for seq in range(1, last + 1)]


def test_history_then_live_then_end(tmp_path: Path, valkey: ValkeyProcess) -> None:
    async def scenario(watched: Watched) -> None:
        watched.run.write(1, range(1, 6))
        with valkey.client() as client:
            watched.run.ship(client, 1, range(1, 6))
            async with watched.watch() as frames:
                await until(lambda: len(ids(frames)) == 5)
                watched.run.write(1, range(6, 11))
                watched.run.ship(client, 1, range(6, 11))
                await until(lambda: len(ids(frames)) == 10)
                watched.change(status="succeeded")
                await until(lambda: frames[-1].event == "end")
        assert ids(frames) == expected(1, 10)
        assert frames[0].event == "job"
        assert frames[0].id is None
        assert frames[-1].id == "1-10"
        assert watched.hub.num_watchers == 0

    run_watched(tmp_path, valkey.url, scenario)


def test_a_watcher_comes_back_with_its_last_id(tmp_path: Path, valkey: ValkeyProcess) -> None:
    async def scenario(watched: Watched) -> None:
        watched.run.write(1, range(1, 21))
        async with watched.watch() as frames:
            await until(lambda: len(ids(frames)) == 20)
        watched.run.write(1, range(21, 31))
        async with watched.watch(EventId(1, 13)) as again:
            await until(lambda: len(ids(again)) == 17)
        assert ids(frames)[:13] + ids(again) == expected(1, 30)

    run_watched(tmp_path, valkey.url, scenario)


def test_many_watchers_share_one_reader(tmp_path: Path, valkey: ValkeyProcess) -> None:
    async def scenario(watched: Watched) -> None:
        async with contextlib.AsyncExitStack() as stack:
            told = [await stack.enter_async_context(watched.watch()) for _ in range(20)]
            await until(lambda: all(frames for frames in told))
            with valkey.client() as client:
                watched.run.ship(client, 1, range(1, 101))
                assert client.info("clients")["connected_clients"] < 10
            await until(lambda: all(len(ids(frames)) == 100 for frames in told))
        assert all(ids(frames) == expected(1, 100) for frames in told)

    run_watched(tmp_path, valkey.url, scenario)


def test_holes_in_what_comes_live_are_filled(tmp_path: Path, valkey: ValkeyProcess) -> None:
    async def scenario(watched: Watched) -> None:
        async with watched.watch() as frames:
            await until(lambda: bool(frames))
            watched.run.write(1, range(1, 51))
            with valkey.client() as client:
                watched.run.ship(client, 1, range(40, 51))
            await until(lambda: len(ids(frames)) == 50)
        assert ids(frames) == expected(1, 50)

    run_watched(tmp_path, valkey.url, scenario)


def test_redis_may_vanish_and_come_back_empty(tmp_path: Path, valkey: ValkeyProcess) -> None:
    async def scenario(watched: Watched) -> None:
        async with watched.watch() as frames:
            with valkey.client() as client:
                watched.run.write(1, range(1, 11))
                watched.run.ship(client, 1, range(1, 11))
            await until(lambda: len(ids(frames)) == 10)
            valkey.kill()
            await until(lambda: not watched.hub.streams.up)
            watched.run.write(1, range(11, 21))
            await until(lambda: len(ids(frames)) == 20)
            valkey.start()
            await until(lambda: watched.hub.streams.up)
            with valkey.client() as client:
                client.flushall()
                watched.run.write(1, range(21, 31))
                watched.run.ship(client, 1, range(1, 31))
            await until(lambda: len(ids(frames)) == 30)
        assert ids(frames) == expected(1, 30)

    run_watched(tmp_path, valkey.url, scenario)


def test_without_any_redis_journals_are_followed(tmp_path: Path) -> None:
    async def scenario(watched: Watched) -> None:
        async with watched.watch() as frames:
            watched.run.write(1, range(1, 6))
            await until(lambda: len(ids(frames)) == 5)
            watched.run.write(1, range(6, 8))
            watched.change(status="failed", error={"code": "CRASHED"})
            await until(lambda: frames[-1].event == "end")
        assert ids(frames) == expected(1, 7)

    run_watched(tmp_path, "unix:///nowhere/valkey.sock", scenario)


def test_a_zombie_of_an_earlier_attempt_is_not_heard(tmp_path: Path, valkey: ValkeyProcess) -> None:
    async def scenario(watched: Watched) -> None:
        watched.change(attempt=2)
        async with watched.watch() as frames:
            await until(lambda: bool(frames))
            with valkey.client() as client:
                watched.run.ship(client, 1, range(1, 4))
                watched.run.ship(client, 2, range(1, 4))
            await until(lambda: "2-3" in ids(frames))
        live = [item for item in ids(frames) if item.startswith("2-")]
        assert live == expected(2, 3)
        assert ids(frames) == sorted(ids(frames), key=EventId.parse)

    run_watched(tmp_path, valkey.url, scenario)


def test_the_next_attempt_follows_the_first(tmp_path: Path, valkey: ValkeyProcess) -> None:
    async def scenario(watched: Watched) -> None:
        async with watched.watch() as frames:
            with valkey.client() as client:
                watched.run.write(1, range(1, 8))
                watched.run.ship(client, 1, range(1, 6))
                await until(lambda: len(ids(frames)) >= 5)
                watched.change(attempt=2, status="running")
                watched.run.write(2, range(1, 4))
                watched.run.ship(client, 2, range(1, 4))
            await until(lambda: "2-3" in ids(frames))
        assert ids(frames) == expected(1, 7) + expected(2, 3)

    run_watched(tmp_path, valkey.url, scenario)


def test_a_slow_reader_is_cut_off_and_told_so(tmp_path: Path, valkey: ValkeyProcess) -> None:
    async def scenario(watched: Watched) -> None:
        async with watched.hub.subscribe([JOB]) as subscription:
            frames = JobWatch(watched.history(), dict(watched.row), FIRST).frames(subscription, ping_s=30)
            assert (await anext(frames)).event == "job"
            with valkey.client() as client:
                watched.run.ship(client, 1, range(1, 3))
            assert (await anext(frames)).id == "1-1"
            with valkey.client() as client:
                watched.run.ship(client, 1, range(3, 60))
            await until(lambda: subscription.cut)
            rest = [frame async for frame in frames]
        assert rest[-1].event == "lagged"
        told = ["1-1", *ids(rest)]
        assert told == expected(1, len(told))

    run_watched(tmp_path, valkey.url, scenario, queue_limit=10)


def test_closing_the_hub_ends_every_stream(tmp_path: Path, valkey: ValkeyProcess) -> None:
    async def scenario(watched: Watched) -> None:
        async with watched.hub.subscribe([JOB]) as subscription:
            frames = JobWatch(watched.history(), dict(watched.row), FIRST).frames(subscription, ping_s=30)
            await anext(frames)
            watched.hub.close_watchers()
            assert [frame async for frame in frames] == []
        async with watched.hub.subscribe([JOB]) as late:
            frames = JobWatch(watched.history(), dict(watched.row), FIRST).frames(late, ping_s=30)
            assert [frame.event async for frame in frames] == ["job"]

    run_watched(tmp_path, valkey.url, scenario)


def test_silence_is_broken_by_pings(tmp_path: Path, valkey: ValkeyProcess) -> None:
    async def scenario(watched: Watched) -> None:
        async with watched.hub.subscribe([JOB]) as subscription:
            frames = JobWatch(watched.history(), dict(watched.row), FIRST).frames(subscription, ping_s=0.05)
            seen = [(await anext(frames)).event for _ in range(3)]
        assert seen == ["job", "ping", "ping"]

    run_watched(tmp_path, valkey.url, scenario)


@pytest.mark.parametrize(
    ("status", "after", "read_up"),
    [("running", "1-3", False), ("failed", "1-2", False), ("failed", "1-3", True), ("failed", "0-0", False)],
)
def test_who_has_read_everything_of_a_finished_job(
    tmp_path: Path, status: str, after: str, read_up: bool
) -> None:
    run = RunOnDisk(tmp_path, JOB)
    run.write(1, range(1, 4))

    async def ask() -> bool:
        history = History(run.attempts_dir, JOB, LiveStreams("unix:///nowhere", timeout_s=1))
        return await is_read_up(history, {"status": status}, EventId.parse(after))

    assert asyncio.run(ask()) is read_up


def test_looks_do_not_pile_up() -> None:
    async def scenario() -> None:
        hub = Hub(LiveStreams("unix:///nowhere", timeout_s=1), lambda jobs: {})
        async with hub.subscribe([JOB]) as subscription:
            for _ in range(10):
                subscription.offer(Look())
            assert isinstance(await subscription.next(), Look)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(subscription.next(), 0.01)

    asyncio.run(scenario())
