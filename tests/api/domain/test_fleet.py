"""The book of workers: a slot found unhealthy stays so whatever its processes say."""

from __future__ import annotations

import pytest

from api.domain.errors import NotFound
from api.domain.fleet import WorkerBook
from api.domain.records import Slot
from tests.api.domain.library import Library

SLOT = "h/train.g1/0"


def tell(book: WorkerBook, state: str, *, pid: int = 1, reason: str | None = None) -> Slot:
    return book.announce(
        SLOT, queue="train.g1", host="h", pid=pid, gpus=("0",), version="1", state=state, reason=reason
    )


@pytest.fixture
def book(library: Library) -> WorkerBook:
    """A book in which unhealthy slots try again after a minute."""
    return WorkerBook(library.store, library.clock.clock(), unhealthy_retry_s=60.0)


def test_a_slot_is_as_it_says(library: Library, book: WorkerBook) -> None:
    first = tell(book, "idle")
    assert (first.state, first.gpus, first.reason, first.unhealthy_since) == ("idle", ("0",), None, None)
    library.clock.advance(5)
    second = tell(book, "busy", pid=2)
    assert (second.state, second.pid, second.seen_at) == ("busy", 2, library.clock.now)
    assert second.started_at == first.started_at
    assert tell(book, "gone").state == "gone"
    assert tell(book, "idle").state == "idle"
    assert book.unhealthy(SLOT) is None is book.unhealthy("unknown")


def test_unhealthy_outlives_its_process(library: Library, book: WorkerBook) -> None:
    tell(book, "busy")
    told = tell(book, "unhealthy", reason="2 GiB of GPU memory left behind")
    since = library.clock.now
    for state, pid in (("idle", 1), ("gone", 1), ("idle", 2), ("busy", 2)):
        library.clock.advance(5)
        slot = tell(book, state, pid=pid)
        assert (slot.state, slot.reason, slot.unhealthy_since) == ("unhealthy", told.reason, since)
        assert (slot.pid, slot.seen_at) == (pid, library.clock.now)
        assert book.unhealthy(SLOT) == told.reason
    assert tell(book, "unhealthy").unhealthy_since == since
    library.clock.advance(60)
    assert book.unhealthy(SLOT) is None
    slot = tell(book, "idle", pid=2)
    assert (slot.state, slot.reason, slot.unhealthy_since) == ("idle", None, None)


def test_a_person_clears_a_slot(library: Library) -> None:
    book = WorkerBook(library.store, library.clock.clock())
    tell(book, "unhealthy", reason="no answer from the GPU")
    library.clock.advance(1e9)
    assert book.unhealthy(SLOT) == "no answer from the GPU"
    assert tell(book, "idle").state == "unhealthy"
    cleared = book.clear(SLOT)
    assert (cleared.state, cleared.reason, cleared.unhealthy_since) == ("gone", None, None)
    assert book.unhealthy(SLOT) is None
    assert tell(book, "idle").state == "idle"
    assert book.clear(SLOT).state == "idle"
    with pytest.raises(NotFound) as error:
        book.clear("nobody")
    assert error.value.code == "WORKER_NOT_FOUND"


def test_a_slot_may_begin_unhealthy(book: WorkerBook) -> None:
    slot = tell(book, "unhealthy", reason="x" * 1000)
    assert slot.reason == "x" * 400
    assert book.list() == [slot]
