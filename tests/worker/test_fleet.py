"""Slots share a machine's GPUs without sharing a GPU, and say what they do."""

import threading
from collections.abc import Iterator

import pytest

from api.domain.fleet import WorkerBook
from tests.support.books import Books, until
from worker.fleet import Presence, SlotSpec, make_slot, visible_gpus


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0, 1,2,GPU-abc")
    yield


@pytest.mark.parametrize(
    ("value", "found"), [("", []), ("-1", []), ("3", ["3"]), ("0,GPU-a", ["0", "GPU-a"])]
)
def test_devices_this_process_may_use(monkeypatch: pytest.MonkeyPatch, value: str, found: list[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert visible_gpus() == found


@pytest.mark.usefixtures("four_gpus")
def test_slots_divide_the_devices() -> None:
    assert [make_slot(("train.g2",), number).gpus for number in (0, 1)] == [("0", "1"), ("2", "GPU-abc")]
    with pytest.raises(ValueError, match="slot 2 of train.g2"):
        make_slot(("train.g2",), 2)


@pytest.mark.usefixtures("four_gpus")
def test_a_cpu_slot_hides_the_devices() -> None:
    slot = make_slot(("train.cpu",), 0)
    assert slot.environment() == {"CUDA_VISIBLE_DEVICES": ""}
    assert (slot.device("auto"), slot.device("cuda:1")) == ("cpu", "cuda:1")
    assert make_slot(("train.g1",), 3).device("auto") == "cuda:0"


def test_presence_tells_what_a_slot_does(books: Books) -> None:
    book, drain = WorkerBook(books.store), threading.Event()
    presence = Presence(book, SlotSpec(("train.cpu",), 0, "testhost"), drain, period_s=60)

    def seen() -> tuple[str, str | None] | None:
        slots = book.list()
        return (slots[0].state, slots[0].current_id) if slots else None

    presence.start()
    until(lambda: seen() == ("idle", None))
    presence.show("busy", "job_1")
    until(lambda: seen() == ("busy", "job_1"))
    drain.set()
    presence.show("busy", "job_1")
    until(lambda: seen() == ("draining", "job_1"))
    presence.stop()
    assert seen() == ("gone", None)
