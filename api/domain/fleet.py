"""The book of workers: which slots there are, what each does, and when it was last seen.

For people, and for a slot to know whether it may claim: who owns a job is decided by leases, never by these
rows. A slot once found unhealthy stays so, whatever its processes say, until its time or a person clears it.
One whose program and database are of different schemas is outdated as long as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from api.domain import rows
from api.domain import tables as t
from api.domain.clock import SYSTEM_CLOCK, Clock
from api.domain.errors import NotFound
from api.domain.records import Slot
from api.domain.store import Store, disagreement, insert_or_ignore, newest_revision

UNHEALTHY = "unhealthy"
GONE = "gone"
OUTDATED = "outdated"
_MAX_REASON = 400


class WorkerBook:
    """Worker slots of all machines; `unhealthy_retry_s` None leaves it to people to clear a slot.

    `schema` is the revision of the tables this program knows, that of its migrations if absent.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock = SYSTEM_CLOCK,
        *,
        unhealthy_retry_s: float | None = None,
        schema: str | None = None,
    ) -> None:
        self.store = store
        self.clock = clock
        self._retry_s = unhealthy_retry_s
        # Read once: the files may be another version's by the time they are looked at again.
        self._schema = schema or newest_revision()

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
        reason: str | None = None,
    ) -> Slot:
        """Say that a slot lives and what it does (idle, busy, draining, unhealthy, gone); return its row.

        The row may say `unhealthy`, or `outdated` in place of `idle`: then the slot must not claim. `reason`
        says why a slot is unhealthy.
        """
        now = self.clock.wall()
        shown: dict[str, Any] = {"queue": queue, "host": host, "pid": pid, "gpus": list(gpus)}
        shown |= {"version": version, "current_id": current_id, "seen_at": now}

        def write(conn: Connection) -> Slot:
            told = self._told(conn, state, reason)
            made = {"id": slot_id, "started_at": now, **shown, **_health(None, told, now, self._retry_s)}
            if not insert_or_ignore(conn, t.workers, made):
                known = _row(conn, slot_id, lock=True)
                assert known is not None, "the row is there: it could not be inserted"
                values = {**shown, **_health(known, told, now, self._retry_s)}
                conn.execute(sa.update(t.workers).where(t.workers.c.id == slot_id).values(**values))
            row = _row(conn, slot_id)
            assert row is not None
            return rows.slot(row)

        return self.store.write(write)

    def _told(self, conn: Connection, state: str, reason: str | None) -> tuple[str, str | None]:
        """Return state and reason as they are entered: a slot that must not claim does not idle."""
        if state == "idle" and (other := disagreement(conn, self._schema)) is not None:
            return OUTDATED, other
        return state, reason[:_MAX_REASON] if reason is not None else None

    def unhealthy(self, slot_id: str) -> str | None:
        """Return why this slot must not claim now; None where it may, or is unknown."""
        row, other = self.store.read(lambda conn: (_row(conn, slot_id), disagreement(conn, self._schema)))
        if other is not None:
            return other
        if row is None or row["unhealthy_since"] is None:
            return None
        if self._retry_s is not None and self.clock.wall() - row["unhealthy_since"] >= self._retry_s:
            return None
        return row["reason"] or UNHEALTHY

    def clear(self, slot_id: str) -> Slot:
        """Let an unhealthy slot claim again: a person has looked at it. Raises NotFound."""

        def write(conn: Connection) -> Slot:
            row = _row(conn, slot_id, lock=True)
            if row is None:
                raise NotFound(f"no worker {slot_id[:120]!r}", code="WORKER_NOT_FOUND")
            values: dict[str, Any] = {"reason": None, "unhealthy_since": None}
            if row["state"] == UNHEALTHY:
                # Its process, if there is one, says otherwise within a heartbeat.
                values["state"] = GONE
            statement = sa.update(t.workers).where(t.workers.c.id == slot_id).values(**values)
            return rows.slot(conn.execute(statement.returning(t.workers)).mappings().one())

        return self.store.write(write)

    def list(self) -> list[Slot]:
        """Return all slots, by queue and name."""
        query = sa.select(t.workers).order_by(t.workers.c.queue, t.workers.c.id)
        return self.store.read(lambda conn: [rows.slot(row) for row in conn.execute(query).mappings()])


def _row(conn: Connection, slot_id: str, *, lock: bool = False) -> RowMapping | None:
    query = sa.select(t.workers).where(t.workers.c.id == slot_id)
    return conn.execute(query.with_for_update() if lock else query).mappings().one_or_none()


def _health(
    known: RowMapping | None, told: tuple[str, str | None], now: float, retry_s: float | None
) -> dict[str, Any]:
    """Return state, reason and since when it is unhealthy, as the row is to have them."""
    state, reason = told
    since = known["unhealthy_since"] if known is not None else None
    if state == UNHEALTHY:
        known_reason = known["reason"] if known is not None and since is not None else None
        return {"state": state, "reason": reason or known_reason, "unhealthy_since": since or now}
    if since is None or (retry_s is not None and now - since >= retry_s):
        return {"state": state, "reason": reason, "unhealthy_since": None}
    return {"state": UNHEALTHY}
