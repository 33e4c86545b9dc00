"""A worker whose program and database are of different schemas claims nothing until they agree."""

from __future__ import annotations

import threading

import structlog

from api.domain.records import JobStatus, Slot
from api.domain.store import Store, newest_revision
from tests.support.books import Books, until
from tests.worker.conftest import MakeSlot
from worker.tasks import WorkerSlot, hold_while_unhealthy, ingest_next, train_next


def migrate_to(store: Store, revision: str) -> None:
    """Say of a database that it is of another revision, as another version's migration does."""
    with store.engine.begin() as conn:
        conn.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{revision}'")


def row(slot: WorkerSlot) -> Slot | None:
    return next((one for one in slot.workers.list() if one.id == slot.spec.id), None)


def state(slot: WorkerSlot) -> str:
    found = row(slot)
    return found.state if found is not None else ""


def test_a_worker_of_another_schema_waits_until_they_agree(books: Books, make_slot: MakeSlot) -> None:
    job, slot = books.submit(epochs=1), make_slot()
    migrate_to(slot.store, "9999")
    slot.presence.start()
    until(lambda: state(slot) == "outdated")
    told = row(slot)
    expected = f"the database is at schema revision 9999, this program at {newest_revision()}"
    assert told is not None and told.reason == expected
    assert not train_next(slot) and not ingest_next(slot)
    with structlog.testing.capture_logs() as lines:
        held = threading.Thread(target=hold_while_unhealthy, args=(slot,))
        held.start()
        until(lambda: bool(lines))
        assert held.is_alive() and books.jobs.get(job.id).status is JobStatus.QUEUED
        migrate_to(slot.store, newest_revision())
        held.join(20)
    assert not held.is_alive()
    assert lines[0]["log_level"] == "warning" and lines[0]["reason"] == expected
    assert train_next(slot)
    assert books.jobs.get(job.id).status is JobStatus.SUCCEEDED
    until(lambda: state(slot) == "idle")
    told = row(slot)
    assert told is not None and told.reason is None
