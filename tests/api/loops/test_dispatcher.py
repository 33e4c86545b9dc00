"""As many nudges as there is work to claim, and none the book does not know of."""

from __future__ import annotations

import pytest

from api.domain.clock import ManualClock
from api.domain.settings import Settings
from api.loops.dispatcher import Dispatcher, missing
from api.loops.loop import QueueRefused, WireAway
from api.loops.nudges import MemoryNudges
from api.loops.singleton import Singleton
from tests.api.domain.library import QUEUE, Library


@pytest.fixture
def nudges() -> MemoryNudges:
    return MemoryNudges()


def make(library: Library, nudges: MemoryNudges) -> Dispatcher:
    singleton = Singleton(library.store, "dispatcher", ttl_s=10, clock=ManualClock().clock())
    return Dispatcher((library.jobs, library.tasks), nudges, singleton, Settings(max_nudges=3))


@pytest.mark.parametrize(
    ("due", "waiting", "lacks"),
    [
        (0, 0, 0),
        (2, 0, 2),
        (2, 1, 1),
        (2, 5, 0),
        (500, 4, 6),
    ],
)
def test_missing(due: int, waiting: int, lacks: int) -> None:
    assert missing(due, waiting, most=10) == lacks


def test_each_queue_gets_what_it_lacks(library: Library, nudges: MemoryNudges) -> None:
    library.dataset("other", sha="f")
    library.submit(ready=False)
    dispatcher = make(library, nudges)
    dispatcher.tick()
    assert nudges.queues == {"ingest": 2}
    library.ingest()
    library.ingest()
    library.submit(queue="train.g1")
    dispatcher.tick()
    dispatcher.tick()
    assert nudges.queues == {"ingest": 2, QUEUE: 1, "train.g1": 1}
    nudges.queues.clear()
    dispatcher.tick()
    assert nudges.queues == {QUEUE: 1, "train.g1": 1}


def test_a_long_queue_is_kept_short(library: Library, nudges: MemoryNudges) -> None:
    for _ in range(5):
        library.submit()
    make(library, nudges).tick()
    assert nudges.queues == {QUEUE: 3}


def test_a_wire_that_is_away_is_tried_again(library: Library, nudges: MemoryNudges) -> None:
    library.submit()
    dispatcher = make(library, nudges)
    nudges.away = True
    with pytest.raises(WireAway):
        dispatcher.tick()
    nudges.away = False
    dispatcher.tick()
    assert nudges.queues == {QUEUE: 1}


def test_a_queue_that_is_refused_keeps_no_other_waiting(library: Library, nudges: MemoryNudges) -> None:
    for queue in ("_kombu.binding.train.cpu", QUEUE, "train.g1"):
        library.submit(queue=queue)
    library.dataset("other", sha="f")
    nudges.broken = {"_kombu.binding.train.cpu"}
    with pytest.raises(QueueRefused, match="_kombu"):
        make(library, nudges).tick()
    assert nudges.queues == {QUEUE: 1, "train.g1": 1, "ingest": 1}


def test_only_one_copy_sends(library: Library, nudges: MemoryNudges) -> None:
    library.submit()
    first, second = make(library, nudges), make(library, MemoryNudges())
    first.tick()
    nudges.queues.clear()
    second.tick()
    assert nudges.queues == {}
    first.close()
    second.tick()
