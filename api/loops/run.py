"""Starts the loops beside an API process and stops them with it; the only file that wires them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from api.domain.blobs import BlobStore
from api.domain.jobs import JobBook
from api.domain.queueing import open_redis
from api.domain.retention import RetentionBook
from api.domain.settings import Settings
from api.domain.store import Store
from api.domain.tasks import TaskBook
from api.loops.collector import Collector
from api.loops.dispatcher import Dispatcher
from api.loops.loop import Loop, LoopState
from api.loops.nudges import CeleryNudges, Nudges
from api.loops.reaper import Reaper
from api.loops.singleton import Singleton
from api.loops.streams import StreamCloser

DISPATCHER = "dispatcher"


class Loops:
    """Some running loops; a context manager that stops them."""

    def __init__(self, loops: Sequence[Loop]) -> None:
        self._loops = {loop.name: loop for loop in loops}
        for loop in loops:
            loop.start()

    def kick(self) -> None:
        """Let the dispatcher look now: there is new work. Returns at once, never fails."""
        if DISPATCHER in self._loops:
            self._loops[DISPATCHER].kick()

    def states(self) -> Mapping[str, LoopState]:
        """Return how each loop is doing."""
        return {name: loop.state for name, loop in self._loops.items()}

    def stop(self, timeout_s: float = 10.0) -> bool:
        """Ask all to end and wait for them; tells whether all did in time."""
        for loop in self._loops.values():
            loop.ask_to_stop()
        return all([loop.join(timeout_s) for loop in self._loops.values()])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def run_loops(settings: Settings, store: Store, *, nudges: Nudges | None = None) -> Loops:
    """Start all four loops over a migrated store; the caller stops them."""
    jobs, tasks = JobBook(store, settings), TaskBook(store, settings)

    def single(name: str, renew_every_s: float) -> Singleton:
        return Singleton(store, name, ttl_s=settings.singleton_s, renew_every_s=renew_every_s)

    wire = nudges or CeleryNudges(settings)
    relaxed = settings.singleton_s / 4
    dispatcher = Dispatcher((jobs, tasks), wire, single(DISPATCHER, relaxed), settings)
    # The reaper renews at each tick: how long that takes is how it knows that it can trust its own view.
    reaper = Reaper({"jobs": jobs, "tasks": tasks}, single("reaper", 0.0), settings)
    collector = Collector(store, BlobStore(settings.blobs_dir), single("collector", 0.0), settings)
    streams = StreamCloser(RetentionBook(store, settings), open_redis(settings), settings)
    return Loops(
        [
            Loop(DISPATCHER, dispatcher.tick, settings.dispatcher_tick_s, close=dispatcher.close),
            Loop("reaper", reaper.tick, settings.reaper_tick_s, close=reaper.close),
            Loop("collector", collector.tick, settings.collector_tick_s, close=collector.close),
            Loop("streams", streams.tick, settings.collector_tick_s, close=streams.close),
        ]
    )
