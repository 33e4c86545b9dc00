"""The book of workers: which slots there are, what each does, and when it was last seen.

For people to look at only: who owns a job is decided by leases, never by these rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from api.domain import rows
from api.domain import tables as t
from api.domain.clock import SYSTEM_CLOCK, Clock
from api.domain.records import Slot
from api.domain.store import Store, insert_or_ignore


class WorkerBook:
    """Worker slots of all machines."""

    def __init__(self, store: Store, clock: Clock = SYSTEM_CLOCK) -> None:
        self.store = store
        self.clock = clock

    def announce(
        self,
        slot_id: str,
        *,
        queue: str,
        host: str,
        pid: int,
        gpus: Sequence[str] = (),
        version: str,
        state: str = "idle",
        current_id: str | None = None,
    ) -> None:
        """Say that a slot lives and what it does (idle, busy, draining, unhealthy, gone)."""
        now = self.clock.wall()
        shown = {"queue": queue, "host": host, "pid": pid, "gpus": list(gpus), "version": version}
        shown |= {"state": state, "current_id": current_id, "seen_at": now}

        def write(conn: Connection) -> None:
            if insert_or_ignore(conn, t.workers, {"id": slot_id, "started_at": now, **shown}):
                return
            conn.execute(sa.update(t.workers).where(t.workers.c.id == slot_id).values(**shown))

        self.store.write(write)

    def list(self) -> list[Slot]:
        """Return all slots, by queue and name."""
        query = sa.select(t.workers).order_by(t.workers.c.queue, t.workers.c.id)
        return self.store.read(lambda conn: [rows.slot(row) for row in conn.execute(query).mappings()])
