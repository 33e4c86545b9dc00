"""The probe book: requests to time a few batches of a job on a worker of its queue, before it is submitted.

A probe is a task of a training queue and nothing else: what was measured stands in its row. It changes
nothing about the dataset that it reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from api.domain import rows
from api.domain import tables as t
from api.domain.clock import SYSTEM_CLOCK, Clock
from api.domain.errors import NotFound
from api.domain.failures import Failure
from api.domain.ids import new_id
from api.domain.records import Task, TaskStatus, Wish
from api.domain.store import Store

KIND_PROBE = "probe"


class ProbeBook:
    """Probes as an owner sees them; None as owner means everyone's."""

    def __init__(self, store: Store, clock: Clock = SYSTEM_CLOCK) -> None:
        self.store = store
        self.clock = clock

    def create(self, owner: str, dataset_id: str, queue: str, payload: Mapping[str, Any]) -> Task:
        """Queue a probe on a dataset; `payload` is what the worker is told."""
        values = {
            "id": new_id("task"),
            "owner": owner,
            "kind": KIND_PROBE,
            "subject_id": dataset_id,
            "payload": dict(payload),
            "queue": queue,
            "status": TaskStatus.QUEUED,
            "created_at": self.clock.wall(),
        }

        def write(conn: Connection) -> Task:
            return rows.task(
                conn.execute(sa.insert(t.tasks).values(**values).returning(t.tasks)).mappings().one()
            )

        return self.store.write(write)

    def get(self, probe_id: str, owner: str | None) -> Task:
        """Return a probe; raises NotFound."""
        return self.store.read(lambda conn: rows.task(_one(conn, probe_id, owner)))

    def cancel(self, probe_id: str, owner: str | None) -> None:
        """End a probe that has not ended: at once if it waits, else within seconds. Raises NotFound."""

        def write(conn: Connection) -> None:
            _one(conn, probe_id, owner)
            mine = t.tasks.c.id == probe_id
            bump = {"revision": t.tasks.c.revision + 1}
            ended = {"status": TaskStatus.CANCELLED, "finished_at": self.clock.wall()}
            waits, runs = (t.tasks.c.status == status for status in (TaskStatus.QUEUED, TaskStatus.RUNNING))
            conn.execute(sa.update(t.tasks).where(mine, waits).values(**ended, **bump))
            conn.execute(sa.update(t.tasks).where(mine, runs).values(wish=Wish.CANCEL, **bump))

        self.store.write(write)


def put_error(conn: Connection, dataset_id: str, cause: Failure, *, now: float) -> None:
    """Leave the dataset as it is: that a probe failed says nothing about it."""


def _one(conn: Connection, probe_id: str, owner: str | None) -> RowMapping:
    query = sa.select(t.tasks).where(t.tasks.c.id == probe_id, t.tasks.c.kind == KIND_PROBE)
    if owner is not None:
        query = query.where(t.tasks.c.owner == owner)
    row = conn.execute(query).mappings().one_or_none()
    if row is None:
        raise NotFound(f"no probe {probe_id[:60]!r}", code="PROBE_NOT_FOUND")
    return row
