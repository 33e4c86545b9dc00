"""A slot that something is wrong with claims nothing, says why, and a new process of it knows."""

import threading
from collections.abc import Mapping, Sequence

import pytest

from api.domain.records import JobStatus, Slot
from tests.support.books import Books, until
from tests.worker.conftest import MakeSlot
from worker.child import Child
from worker.memory import MIB
from worker.tasks import EX_UNAVAILABLE, WorkerSlot, hold_while_unhealthy, ingest_next, train_next


class LeakyDriver:
    """A fake of the driver: the run that ends leaves 4 GiB behind."""

    def __init__(self) -> None:
        self.asked = 0

    def used_bytes(self, gpus: Sequence[str]) -> Mapping[str, int]:
        self.asked += 1
        return dict.fromkeys(gpus, 100 * MIB if self.asked == 1 else 4196 * MIB)


def row(slot: WorkerSlot) -> Slot:
    (found,) = [one for one in slot.workers.list() if one.id == slot.spec.id]
    return found


def test_gpu_memory_that_stays_makes_a_slot_unhealthy_until_it_is_cleared(
    books: Books, make_slot: MakeSlot
) -> None:
    first, second = books.submit(epochs=1), books.submit(epochs=1)
    slot = make_slot(gpus=("0",))
    slot.gpu_memory, slot.gpu_patience_s = LeakyDriver(), 0.05
    ended: list[bool] = []
    slot.end_process = lambda: ended.append(True)
    assert train_next(slot)
    # The run itself is none the worse for it.
    assert books.jobs.get(first.id).status is JobStatus.SUCCEEDED
    assert (ended, slot.exit_code) == ([True], EX_UNAVAILABLE)
    assert not train_next(slot)
    told = row(slot)
    assert (told.state, told.reason) == ("unhealthy", "4096 MiB of GPU 0 are still in use after the run")
    slot.close()
    assert row(slot).state == "unhealthy"

    again = make_slot(gpus=("0",))
    again.presence.start()
    until(lambda: row(again).seen_at > told.seen_at)
    assert not train_next(again) and not ingest_next(again)
    assert (row(again).state, row(again).reason) == (told.state, told.reason)
    assert books.jobs.get(second.id).status is JobStatus.QUEUED
    # Its neighbour is another slot.
    assert train_next(make_slot(number=1))

    third = books.submit(epochs=1)
    again.workers.clear(again.spec.id)
    assert train_next(again)
    assert books.jobs.get(third.id).status is JobStatus.SUCCEEDED


def test_an_unhealthy_slot_tries_again_after_a_while(books: Books, make_slot: MakeSlot) -> None:
    books.submit(epochs=1)
    slot = make_slot(unhealthy_retry_s=0.3)
    slot.workers.announce(
        slot.spec.id,
        queue="train.cpu",
        host="h",
        pid=1,
        gpus=(),
        version="0",
        state="unhealthy",
        reason="why",
    )
    assert not train_next(slot)
    until(lambda: train_next(slot))


def test_an_unhealthy_slot_keeps_its_place_so_that_messages_go_to_others(
    books: Books, make_slot: MakeSlot
) -> None:
    slot = make_slot()
    slot.workers.announce(
        slot.spec.id,
        queue="train.cpu",
        host="h",
        pid=1,
        gpus=(),
        version="0",
        state="unhealthy",
        reason="why",
    )
    holding = threading.Thread(target=hold_while_unhealthy, args=(slot,))
    holding.start()
    holding.join(0.5)
    assert holding.is_alive()
    slot.workers.clear(slot.spec.id)
    holding.join(10)
    assert not holding.is_alive()
    slot.workers.announce(
        slot.spec.id,
        queue="train.cpu",
        host="h",
        pid=1,
        gpus=(),
        version="0",
        state="unhealthy",
        reason="why",
    )
    holding = threading.Thread(target=hold_while_unhealthy, args=(slot,))
    holding.start()
    slot.drain.set()
    holding.join(10)
    assert not holding.is_alive()


class Undead(Child):
    """Ends, and leaves a process behind that nothing can remove."""

    @property
    def left_nothing(self) -> bool:
        return False


@pytest.mark.parametrize("what", ["train", "ingest"])
def test_processes_that_cannot_be_ended_make_a_slot_unhealthy(
    books: Books, make_slot: MakeSlot, what: str
) -> None:
    slot = make_slot(ingest_command=("true",))
    spawn = slot.spawner.spawn

    def spawn_undead(spec: object) -> Child:
        child = spawn(spec)  # type: ignore[arg-type]
        child.__class__ = Undead
        return child

    slot.spawner.spawn = spawn_undead  # type: ignore[method-assign]
    if what == "train":
        books.submit(epochs=1)
        assert train_next(slot)
    else:
        books.upload("ds", b"archive")
        assert ingest_next(slot)
    assert slot.exit_code == EX_UNAVAILABLE
    assert (row(slot).state, row(slot).reason) == ("unhealthy", "a child left processes that cannot be ended")
