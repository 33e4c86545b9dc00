"""One active copy of a loop among all API processes, without trusting any wall clock.

The active copy moves the number in its row of `leases`; another takes over a row that stood still, by its own
clock, for `ttl_s`. Two active copies for a moment do no harm: every write they make is guarded by itself.
"""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from api.domain import tables as t
from api.domain.clock import SYSTEM_CLOCK, Clock
from api.domain.store import Store, insert_or_ignore


@dataclass(frozen=True)
class _Seen:
    holder: str
    seq: int
    at: float


class Singleton:
    """This process's hold on a loop's name."""

    def __init__(
        self,
        store: Store,
        name: str,
        *,
        ttl_s: float,
        renew_every_s: float = 0.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._store = store
        self._name = name
        self._ttl_s = ttl_s
        self._renew_every_s = renew_every_s
        self._clock = clock
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"[:120]
        self._renewed_at: float | None = None
        self._seen: _Seen | None = None

    def hold(self) -> bool:
        """Renew, or try to take, the name; tells whether this copy is the active one.

        A hold renewed less than `renew_every_s` ago is believed without asking. Raises StoreUnavailable.
        """
        now = self._clock.monotonic()
        if self._renewed_at is not None and now - self._renewed_at < self._renew_every_s:
            return True
        self._renewed_at = None
        found = self._store.write(self._renew)
        if found is not None and self._stood_still(found, now):
            found = self._store.write(self._take)
        if found is not None:
            return False
        self._seen = None
        self._renewed_at = now
        return True

    def release(self) -> None:
        """Give the name back, so that the next copy need not wait; raises StoreUnavailable."""
        statement = sa.delete(t.leases).where(
            t.leases.c.name == self._name, t.leases.c.holder == self._holder
        )
        self._renewed_at = None
        self._store.write(lambda conn: conn.execute(statement).rowcount)

    def _stood_still(self, found: tuple[str, int], now: float) -> bool:
        if self._seen is None or (self._seen.holder, self._seen.seq) != found:
            self._seen = _Seen(*found, at=now)
        return now - self._seen.at >= self._ttl_s

    def _renew(self, conn: Connection) -> tuple[str, int] | None:
        """Move the own row, or make it; return who else holds it, with their number."""
        table = t.leases
        mine = sa.update(table).where(table.c.name == self._name, table.c.holder == self._holder)
        if conn.execute(mine.values(seq=table.c.seq + 1)).rowcount == 1:
            return None
        if insert_or_ignore(conn, table, {"name": self._name, "holder": self._holder, "seq": 0}):
            return None
        row = conn.execute(
            sa.select(table.c.holder, table.c.seq).where(table.c.name == self._name)
        ).one_or_none()
        return (row.holder, row.seq) if row is not None else ("", -1)

    def _take(self, conn: Connection) -> tuple[str, int] | None:
        assert self._seen is not None
        table, seen = t.leases, self._seen
        same = sa.and_(table.c.name == self._name, table.c.holder == seen.holder, table.c.seq == seen.seq)
        taken = conn.execute(sa.update(table).where(same).values(holder=self._holder, seq=table.c.seq + 1))
        return None if taken.rowcount == 1 else (seen.holder, seen.seq)
