"""Many watchers of event streams in one process: `python -m tests.support.watchers CONFIG`, over raw sockets.

CONFIG is JSON: port, token, jobs, history (events each job has already), watchers, slow (how many of them
hardly read), seconds, share (of the watchers that reconnect a second). It tells what it reaches and takes
orders line by line:

1. it connects all, reads the history and tells `connected`; 2. at `run` it lets watchers reconnect for
`seconds` and tells `ran`; 3. at a line {job: seq} it waits until all but the slow have read so far and tells
`reached`; 4. it waits for the end of their streams and tells its report. A client of the HTTP library would
cost more than the server.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

_ID = re.compile(rb"^id: (\d+)-(\d+)", re.MULTILINE)
_TS = re.compile(rb'"ts":([0-9.]+)')
_SLOW_BYTES = 512
_AT_ONCE = 50
_PATIENCE_S = 60.0


@dataclass
class Tally:
    """What was seen over all watchers."""

    latencies_s: list[float] = field(default_factory=list)
    events: int = 0
    gaps: list[str] = field(default_factory=list)
    reconnects: int = 0
    losses: list[str] = field(default_factory=list)


class Watcher:
    """One watcher of one job: reads, checks that ids rise by one, and comes back with its last id."""

    def __init__(self, number: int, config: dict[str, Any], tally: Tally) -> None:
        self.job = config["jobs"][number % len(config["jobs"])]
        self.is_slow = number < config["slow"]
        self.seq = 0
        self.lagged = False
        self.done = asyncio.Event()
        self._config = config
        self._tally = tally
        self._since = 0.0
        self._is_leaving = False
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Open the stream, from the last id on; returns when the answer has begun."""
        link = socket.create_connection(("127.0.0.1", self._config["port"]), timeout=30)
        link.setblocking(False)
        reader, writer = await asyncio.open_connection(
            sock=link, limit=_SLOW_BYTES if self.is_slow else 1 << 18
        )
        if self.is_slow:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        last = f"Last-Event-ID: 1-{self.seq}\r\n" if self.seq else ""
        head = (
            f"GET /v1/jobs/{self.job}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Authorization: Bearer {self._config['token']}\r\n{last}\r\n"
        )
        writer.write(head.encode())
        await writer.drain()
        status = await asyncio.wait_for(reader.readline(), 30)
        if b" 200 " not in status:
            self._tally.losses.append(status.decode(errors="replace"))
        self._writer, self._is_leaving = writer, False
        # Live is what happens once the snapshot has come; what is caught up with is as old as the absence.
        self._since = math.inf
        self._task = asyncio.create_task(self._read(reader))

    async def reconnect(self) -> None:
        """Hang up in the middle of whatever is going on, and come back."""
        assert self._writer is not None and self._task is not None
        self._is_leaving = True
        self._writer.transport.abort()
        await self._task
        await self.connect()
        self._tally.reconnects += 1

    async def _read(self, reader: asyncio.StreamReader) -> None:
        rest = b""
        try:
            while data := await reader.read(_SLOW_BYTES if self.is_slow else 1 << 16):
                *whole, rest = (rest + data).split(b"\n\n")
                now = time.time()
                for message in whole:
                    self._take(message, now)
                if self.is_slow:
                    await asyncio.sleep(1.0)
        except ConnectionError:
            pass
        if not self._is_leaving:
            self.done.set()

    def _take(self, message: bytes, now: float) -> None:
        self.lagged = self.lagged or b"event: lagged" in message
        if b"event: job" in message:
            self._since = min(self._since, now)
        match = _ID.search(message)
        if match is None or b"event: end" in message:
            return
        seq = int(match[2])
        if int(match[1]) != 1 or seq != self.seq + 1:
            self._tally.gaps.append(f"{self.job}: {match[0].decode()} after {self.seq}")
        self.seq = seq
        self._tally.events += 1
        told = _TS.search(message)
        if told is not None and float(told[1]) > self._since and not self.is_slow:
            self._tally.latencies_s.append(now - float(told[1]))


async def all_of(things: list[Callable[[], Awaitable[None]]]) -> None:
    """Do many things, some at once."""
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(thing: Callable[[], Awaitable[None]]) -> None:
        async with room:
            await thing()

    await asyncio.gather(*(one(thing) for thing in things))


async def order() -> str:
    """Wait for a line of the test."""
    line: str = await asyncio.to_thread(sys.stdin.readline)
    return line.strip()


def tell(**values: Any) -> None:
    """Answer with a line."""
    print(json.dumps(values), flush=True)


async def churn(watchers: list[Watcher], config: dict[str, Any]) -> None:
    """Let some of the watchers reconnect, evenly over the time."""
    rng = random.Random(7)
    end = time.monotonic() + config["seconds"]
    pause_s = 1.0 / max(config["share"] * len(watchers), 1e-9)
    due = time.monotonic()
    pending: set[asyncio.Task[None]] = set()
    busy: set[Watcher] = set()

    async def one(watcher: Watcher) -> None:
        try:
            await watcher.reconnect()
        finally:
            busy.discard(watcher)

    while time.monotonic() < end:
        watcher = rng.choice([item for item in watchers if item not in busy])
        busy.add(watcher)
        task = asyncio.create_task(one(watcher))
        pending.add(task)
        task.add_done_callback(pending.discard)
        due += pause_s
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    await asyncio.gather(*pending)


async def reach(watchers: list[Watcher], last: dict[str, int]) -> list[str]:
    """Wait until the watchers have read so far; return those that have not."""
    end = time.monotonic() + _PATIENCE_S
    while behind := [f"{item.job} at {item.seq}" for item in watchers if item.seq < last[item.job]]:
        if time.monotonic() > end:
            return behind
        await asyncio.sleep(0.05)
    return []


def quantile(values: list[float], share: float) -> float:
    """Return the value that a share of the values does not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


async def main(config: dict[str, Any]) -> None:
    """Do the whole."""
    tally = Tally()
    watchers = [Watcher(number, config, tally) for number in range(config["watchers"])]
    quick = [item for item in watchers if not item.is_slow]
    began = time.monotonic()
    await all_of([item.connect for item in watchers])
    assert await reach(quick, dict.fromkeys(config["jobs"], config["history"])) == []
    tell(connected=len(watchers), seconds=time.monotonic() - began)
    assert await order() == "run"
    await churn(quick, config)
    tell(ran=config["seconds"])
    tell(reached=await reach(quick, json.loads(await order())))
    await asyncio.wait_for(asyncio.gather(*(item.done.wait() for item in quick)), _PATIENCE_S)
    tell(
        events=tally.events,
        live=len(tally.latencies_s),
        p50_s=quantile(tally.latencies_s, 0.5),
        p99_s=quantile(tally.latencies_s, 0.99),
        worst_s=quantile(tally.latencies_s, 1.0),
        gaps=tally.gaps[:20],
        losses=tally.losses[:20],
        lagged=sum(item.lagged for item in quick),
        slow_lagged=sum(item.lagged for item in watchers if item.is_slow),
        reconnects=tally.reconnects,
    )


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
