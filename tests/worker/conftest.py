"""A Valkey for the package, a fresh book for each test, and slots that run the fake child."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.books import Books, make_books, short_settings
from tests.support.stores import in_each_store, own_database
from tests.support.valkey import ValkeyProcess, running_valkey
from worker.fleet import SlotSpec
from worker.tasks import WorkerSlot

FAKE_CHILD = Path(__file__).resolve().parents[1] / "support" / "fake_child.py"
MakeSlot = Callable[..., WorkerSlot]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that make a book on SQLite and on PostgreSQL, as told."""
    in_each_store(metafunc)


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[ValkeyProcess]:
    with running_valkey() as server:
        yield server


@pytest.fixture
def valkey(valkey_server: ValkeyProcess) -> ValkeyProcess:
    with valkey_server.client() as client:
        client.flushall()
    return valkey_server


@pytest.fixture
def books(tmp_path: Path, books_in: str, valkey: ValkeyProcess) -> Iterator[Books]:
    with own_database() as place:
        made = make_books(short_settings(tmp_path / "data", valkey.url, **place))
        yield made
        made.store.close()


@pytest.fixture
def make_slot(books: Books) -> Iterator[MakeSlot]:
    """Return a function that opens a slot whose trainer is the fake child with the given options.

    `program` is run in its place, as `python -c`; `changed` are settings of this slot alone.
    """
    opened: list[WorkerSlot] = []

    def make(
        *options: str,
        ingest_command: tuple[str, ...] = (),
        number: int = 0,
        gpus: tuple[str, ...] = (),
        program: str | None = None,
        **changed: Any,
    ) -> WorkerSlot:
        child = (str(FAKE_CHILD),) if program is None else ("-c", program)
        command = (sys.executable, "-P", *child, *options)
        spec = SlotSpec(("train.cpu", "ingest"), number, "testhost", gpus)
        slot = WorkerSlot.open(
            books.settings.model_copy(update=changed),
            spec,
            trainer_command=command,
            ingest_command=ingest_command or ("false",),
        )
        # This process is the tests'.
        slot.end_process = lambda: None
        opened.append(slot)
        return slot

    yield make
    for slot in opened:
        slot.close()
