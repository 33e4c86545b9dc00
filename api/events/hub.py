"""One reader of Redis and one poller of the book for any number of watchers.

Watchers subscribe to jobs. The hub reads all their streams with one XREAD and offers each event to the
subscriptions of its job; it asks the book once per period for all watched jobs and offers what changed.
When Redis is away, or a running job is silent, it tells its watchers to look into the history themselves.
It promises speed, not completeness: a subscription may miss events, and its reader mends gaps by id.
It must not know HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import RedisError

from api.domain.errors import StoreUnavailable
from api.events.figures import Snapshot, with_batch
from api.events.history import LiveStreams, WireEvent

log = logging.getLogger("trainshed.events")

_IDLE_S = 1.0
_CANCEL_AGAIN_S = 0.1

ReadSnapshots = Callable[[Sequence[str]], Mapping[str, Snapshot]]
"""Blocking: the current snapshots of these jobs; jobs that are gone are left out."""


@dataclass(frozen=True)
class Changed:
    """The job's row changed."""

    snapshot: Snapshot


@dataclass(frozen=True)
class Look:
    """There may be events that did not come this way; look into the history."""


@dataclass(frozen=True)
class Lagged:
    """The watcher is too slow; it is cut off and may come back with its last id."""


@dataclass(frozen=True)
class Closing:
    """The process stops."""


Item = WireEvent | Changed | Look | Lagged | Closing


class Subscription:
    """The bounded queue of one watcher of one or several jobs."""

    def __init__(self, jobs: Sequence[str], *, limit: int, live: bool) -> None:
        self.jobs = tuple(jobs)
        self.live = live
        self._limit = limit
        self._items: deque[Item] = deque()
        self._ready = asyncio.Event()
        self.cut = False

    def offer(self, item: Item) -> None:
        """Put an item at the end; when there is no room left, everything is dropped for one Lagged."""
        if self.cut:
            return
        if isinstance(item, Look) and any(isinstance(waiting, Look) for waiting in self._items):
            return
        if len(self._items) >= self._limit:
            item = Lagged()
        if isinstance(item, Lagged | Closing):
            self._items.clear()
            self.cut = True
        self._items.append(item)
        self._ready.set()

    def next_now(self) -> Item | None:
        """Return the next item if it is there."""
        return self._items.popleft() if self._items else None

    async def next(self) -> Item:
        """Wait for the next item; after Lagged or Closing there is none."""
        while not self._items:
            self._ready.clear()
            await self._ready.wait()
        return self._items.popleft()


@dataclass
class _Channel:
    """What the hub remembers of one watched job."""

    subscriptions: set[Subscription] = field(default_factory=set)
    cursor: str | None = None
    shown: Any = None
    latest: WireEvent | None = None
    heard_at: float = field(default_factory=time.monotonic)

    @property
    def live(self) -> bool:
        return any(item.live for item in self.subscriptions)

    @property
    def listed(self) -> bool:
        return any(not item.live for item in self.subscriptions)


class Hub:
    """Feeds all watchers of this process; start and stop it from the event loop."""

    def __init__(
        self,
        streams: LiveStreams,
        read_snapshots: ReadSnapshots,
        *,
        poll_s: float = 1.0,
        quiet_s: float = 3.0,
        retry_s: float = 0.5,
        block_ms: int = 200,
        queue_limit: int = 2000,
    ) -> None:
        self.streams = streams
        self._read_snapshots = read_snapshots
        self._poll_s = poll_s
        self._quiet_s = quiet_s
        self._retry_s = retry_s
        self._block_ms = block_ms
        self._queue_limit = queue_limit
        self._channels: dict[str, _Channel] = {}
        self._wake = asyncio.Event()
        self._placing = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self.closing = False

    @property
    def num_watchers(self) -> int:
        """Number of open subscriptions."""
        return len({id(item) for channel in self._channels.values() for item in channel.subscriptions})

    async def start(self) -> None:
        """Begin to read; does not wait for Redis."""
        self._tasks = [
            asyncio.create_task(_forever(self._read_redis, self._retry_s), name="hub-redis"),
            asyncio.create_task(_forever(self._poll_book, self._poll_s), name="hub-book"),
        ]

    def close_watchers(self) -> None:
        """Tell every watcher that the process stops, so that their responses end by themselves."""
        self.closing = True
        for channel in self._channels.values():
            for subscription in channel.subscriptions:
                subscription.offer(Closing())

    async def stop(self) -> None:
        """Close the watchers, end the tasks and the connection."""
        self.close_watchers()
        await end_tasks(self._tasks)
        self._tasks = []
        with contextlib.suppress(RedisError, OSError):
            await self.streams.close()

    @contextlib.asynccontextmanager
    async def subscribe(self, jobs: Sequence[str], *, live: bool = True) -> AsyncIterator[Subscription]:
        """Subscribe to jobs; without `live` only to changes of their rows.

        What enters a stream after this returned is offered, as long as Redis answers; so is the state of the
        rows with the next look into the book, whenever it changed last.
        """
        subscription = Subscription(jobs, limit=self._queue_limit, live=live)
        if self.closing:
            subscription.offer(Closing())
        for job in subscription.jobs:
            channel = self._channels.setdefault(job, _Channel())
            channel.subscriptions.add(subscription)
            channel.shown = None
        try:
            if live:
                await self._place_cursors()
            self._wake.set()
            yield subscription
        finally:
            self._leave(subscription)

    def _leave(self, subscription: Subscription) -> None:
        for job in subscription.jobs:
            channel = self._channels.get(job)
            if channel is not None:
                channel.subscriptions.discard(subscription)
                if not channel.subscriptions:
                    del self._channels[job]

    async def _place_cursors(self) -> None:
        """Give every live channel without a position the present end of its stream."""
        # One at a time: a crowd that comes back at once is placed by the first of it.
        async with self._placing:
            fresh = [job for job, channel in self._channels.items() if channel.live and not channel.cursor]
            if not fresh or not self.streams.up:
                return
            try:
                ends = await self.streams.ends(fresh)
            except (RedisError, OSError):
                return
            for job, end in zip(fresh, ends, strict=True):
                channel = self._channels.get(job)
                if channel is not None and channel.cursor is None:
                    channel.cursor = end

    async def _read_redis(self) -> None:
        """Read all live streams once, or notice that Redis is away."""
        try:
            if not self.streams.up:
                await self.streams.ping()
                self.streams.up = True
                log.info("live events flow")
                await self._place_cursors()
                self._offer_look(self._channels.values())
            await self._read_once(self.streams)
        except (RedisError, OSError) as error:
            if self.streams.up:
                log.warning("Redis is away, events are read from journals: %s", error)
            self.streams.up = False
            await asyncio.sleep(self._retry_s)

    async def _read_once(self, streams: LiveStreams) -> None:
        unplaced = [item for item in self._channels.values() if item.live and item.cursor is None]
        if unplaced:
            await self._place_cursors()
            self._offer_look(unplaced)
        cursors = {job: item.cursor for job, item in self._channels.items() if item.live and item.cursor}
        if not cursors:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_IDLE_S):
                    await self._wake.wait()
            await streams.ping()
            return
        for job, cursor, events in await streams.read(cursors, block_ms=self._block_ms):
            channel = self._channels.get(job)
            if channel is None:
                continue
            channel.cursor = cursor
            channel.heard_at = time.monotonic()
            for event in events:
                for subscription in channel.subscriptions:
                    if subscription.live:
                        subscription.offer(event)

    async def _poll_book(self) -> None:
        """Ask the book once for all watched jobs, after a pause."""
        await asyncio.sleep(self._poll_s)
        jobs = list(self._channels)
        if not jobs:
            return
        try:
            snapshots = await asyncio.to_thread(self._read_snapshots, jobs)
        except StoreUnavailable as error:
            log.warning("the book does not answer: %s", error)
            return
        self._offer_changes(snapshots, await self._latest_batches(snapshots))

    async def _latest_batches(self, snapshots: Mapping[str, Snapshot]) -> Mapping[str, WireEvent]:
        """Return the last batch of each running job of a list: one look for all of them."""
        jobs = [
            job
            for job, snapshot in snapshots.items()
            if snapshot["status"] == "running" and job in self._channels and self._channels[job].listed
        ]
        if not jobs or not self.streams.up:
            return {}
        try:
            return await self.streams.latest(jobs, "batch")
        except (RedisError, OSError):
            return {}

    def freshened(self, snapshot: Snapshot) -> Snapshot:
        """Return a snapshot with the figures of the last batch seen of its job, if they are newer."""
        channel = self._channels.get(str(snapshot["id"]))
        return with_batch(snapshot, channel.latest if channel is not None else None)

    def _offer_changes(self, snapshots: Mapping[str, Snapshot], latest: Mapping[str, WireEvent]) -> None:
        for job, snapshot in snapshots.items():
            channel = self._channels.get(job)
            if channel is None:
                continue
            shown = (snapshot["revision"], snapshot.get("waiting_reason"), snapshot.get("queue_position"))
            batch = latest.get(job, channel.latest)
            is_changed = shown != channel.shown
            is_further = batch is not None and (channel.latest is None or batch.id != channel.latest.id)
            channel.shown, channel.latest = shown, batch
            for subscription in channel.subscriptions:
                if is_changed and subscription.live:
                    subscription.offer(Changed(snapshot))
                elif (is_changed or is_further) and not subscription.live:
                    subscription.offer(Changed(with_batch(snapshot, batch)))
            if snapshot["status"] == "running" and self._is_quiet(channel):
                self._offer_look([channel])

    def _is_quiet(self, channel: _Channel) -> bool:
        return not self.streams.up or time.monotonic() - channel.heard_at > self._quiet_s

    @staticmethod
    def _offer_look(channels: Any) -> None:
        for channel in list(channels):
            for subscription in channel.subscriptions:
                if subscription.live:
                    subscription.offer(Look())


async def _forever(step: Callable[[], Awaitable[None]], pause_s: float) -> None:
    """Do a step again and again; the top of a task, so a fault of ours is logged and does not end it."""
    while True:
        try:
            await step()
        except Exception:
            log.exception("live events stumbled")
            await asyncio.sleep(pause_s)


async def end_tasks(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks until they end.

    Once is not enough: under Python 3.11 `asyncio.wait_for`, which the Redis client uses, loses a
    cancellation that arrives together with its result.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_S)
