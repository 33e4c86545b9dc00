"""What one watcher is told, in order and without gaps: a snapshot, the history, then what happens.

Pure of HTTP: it yields frames, the routes send them. Live events come from the hub and may have holes; every
hole in the ids is filled from the history before the next event is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

from api.domain.wire import EventId
from api.events.figures import Snapshot
from api.events.frames import PING, Frame
from api.events.history import LAST, History, WireEvent
from api.events.hub import Changed, Closing, Item, Lagged, Look, Subscription

FINAL = frozenset({"succeeded", "failed", "cancelled"})
_SHOWN = ("status", "attempt", "wish", "error", "waiting_reason")


class JobWatch:
    """The state of one watcher of one job: what it was told last, and what the job was then."""

    def __init__(self, history: History, snapshot: Snapshot, after: EventId) -> None:
        self._history = history
        self._snapshot = snapshot
        self._last = after

    async def frames(self, subscription: Subscription, *, ping_s: float) -> AsyncGenerator[Frame]:
        """Tell everything until the job ends, the watcher lags or the process stops."""
        yield Frame("job", self._snapshot)
        async for frame in self._catch_up():
            yield frame
        while self._snapshot["status"] not in FINAL:
            item = await _next(subscription, ping_s)
            if isinstance(item, WireEvent) and self._follows(item):
                # What nearly always comes, without the detour for what may.
                self._last = item.id
                yield item.frame
                continue
            if isinstance(item, Lagged):
                yield Frame("lagged", {"last_event_id": str(self._last)})
            if isinstance(item, Lagged | Closing):
                return
            async for frame in self._answer(item):
                yield frame
        async for frame in self._catch_up():
            yield frame
        # With an id, a reconnect after the end says that everything was read, even if nothing happened.
        yield Frame("end", self._snapshot, id=str(self._last))

    async def _answer(self, item: Item | None) -> AsyncIterator[Frame]:
        match item:
            case WireEvent():
                async for frame in self._tell(item):
                    yield frame
            case Changed(snapshot):
                # Progress travels in events; a snapshot is sent only where the state itself changed.
                is_news = any(snapshot.get(key) != self._snapshot.get(key) for key in _SHOWN)
                self._snapshot = snapshot
                if is_news:
                    yield Frame("job", snapshot)
            case Look():
                async for frame in self._catch_up():
                    yield frame
            case _:
                yield PING

    def _follows(self, event: WireEvent) -> bool:
        last = self._last
        is_next = event.id.attempt == last.attempt and event.id.seq == last.seq + 1
        return is_next and event.id.attempt >= self._snapshot["attempt"]

    async def _tell(self, event: WireEvent) -> AsyncIterator[Frame]:
        # A zombie of an earlier attempt can still write where the stream was lost and made anew.
        if event.id <= self._last or event.id.attempt < self._snapshot["attempt"]:
            return
        if event.id != EventId(self._last.attempt, self._last.seq + 1):
            async for frame in self._catch_up(event.id):
                yield frame
        self._last = event.id
        yield event.frame

    async def _catch_up(self, until: EventId = LAST) -> AsyncIterator[Frame]:
        async for event in self._history.between(self._last, until):
            self._last = event.id
            yield event.frame


async def is_read_up(history: History, snapshot: Snapshot, after: EventId) -> bool:
    """Tell whether a watcher that comes back with this id has nothing left to learn of a finished job."""
    if snapshot["status"] not in FINAL:
        return False
    async with aclosing(history.between(after)) as rest:
        return await anext(rest, None) is None


async def list_frames(
    subscription: Subscription, snapshots: Sequence[Snapshot], *, ping_s: float
) -> AsyncGenerator[Frame]:
    """Tell the snapshots of several jobs, and again each that changed, at the pace the book is polled."""
    told = {str(snapshot["id"]): snapshot for snapshot in snapshots}
    for snapshot in snapshots:
        yield Frame("job", snapshot)
    while True:
        item = await _next(subscription, ping_s)
        match item:
            case None:
                yield PING
            case Changed(snapshot):
                if snapshot != told.get(str(snapshot["id"])):
                    told[str(snapshot["id"])] = snapshot
                    yield Frame("job", snapshot)
            case Lagged():
                yield Frame("lagged", {})
                return
            case Closing():
                return
            case _:
                continue


async def _next(subscription: Subscription, ping_s: float) -> Item | None:
    """Return the next item; None after a silence of `ping_s`."""
    if (item := subscription.next_now()) is not None:
        return item
    try:
        async with asyncio.timeout(ping_s):
            return await subscription.next()
    except TimeoutError:
        return None
