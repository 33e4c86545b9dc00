"""Claim, fence, heartbeat and expiry: the same for jobs and for tasks.

Works on any table with the columns of `tables._leased`. Each function is one statement (or a statement and
its guard) inside the caller's transaction; what a change means, and its audit row, are the caller's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from api.domain.errors import Fenced
from api.domain.records import Wish


@dataclass(frozen=True)
class Held:
    """A running claim as someone saw it: enough to expire exactly this one and no later one."""

    id: str
    attempt: int
    lease_seq: int


def claim(
    conn: Connection,
    table: sa.Table,
    *,
    queue: str,
    worker: str,
    now: float,
    order: Sequence[str] = ("id",),
    eligible: Sequence[sa.ColumnElement[bool]] = (),
    values: Mapping[str, Any] | None = None,
) -> RowMapping | None:
    """Take the next due row of a queue as a new attempt, and return it; None where there is none.

    `order` names columns, a leading `-` turns one round; `eligible` are further conditions on the row. One
    UPDATE whose row is chosen inside it, locked and skipped where another worker is choosing it too. A stop
    that stands is for this attempt to carry out.
    """
    chosen = (
        sa.select(table.c.id)
        .where(table.c.queue == queue, *due(table, now), *eligible)
        .order_by(*(_ordered(table, name) for name in order))
        .limit(1)
        .with_for_update(skip_locked=True, of=table)
        .subquery()
    )
    statement = (
        sa.update(table)
        .where(table.c.id == sa.select(chosen.c.id).scalar_subquery(), table.c.status == "queued")
        .values(
            status="running",
            attempt=table.c.attempt + 1,
            lease_seq=table.c.lease_seq + 1,
            revision=table.c.revision + 1,
            worker=worker,
            wish=sa.case((table.c.wish == Wish.STOP.value, table.c.wish)),
            not_before=None,
            started_at=sa.func.coalesce(table.c.started_at, now),
            **(values or {}),
        )
        .returning(table)
    )
    return conn.execute(statement).mappings().one_or_none()


def due(table: sa.Table, now: float) -> list[sa.ColumnElement[bool]]:
    """Return the conditions under which a row waits to be claimed now."""
    return [has_status(table, "queued"), sa.or_(table.c.not_before.is_(None), table.c.not_before <= now)]


def has_status(table: sa.FromClause, status: str) -> sa.ColumnElement[bool]:
    """Return the condition of a state, written out: with a parameter no partial index would be used."""
    return table.c.status == sa.literal_column(f"'{status}'")


def count_due(
    conn: Connection, table: sa.Table, *, now: float, eligible: Sequence[sa.ColumnElement[bool]] = ()
) -> dict[str, int]:
    """Return how many rows of each queue could be claimed now."""
    query = (
        sa.select(table.c.queue, sa.func.count()).where(*due(table, now), *eligible).group_by(table.c.queue)
    )
    return {queue: count for queue, count in conn.execute(query)}


def fence(
    conn: Connection, table: sa.Table, row_id: str, attempt: int, values: Mapping[str, Any] | None = None
) -> RowMapping:
    """Write to a row only if this attempt owns it, as the first statement of a transaction.

    Returns the row after the write; raises Fenced, so that the transaction rolls back.
    """
    statement = (
        sa.update(table)
        .where(table.c.id == row_id, table.c.status == "running", table.c.attempt == attempt)
        .values(**(values or {}), revision=table.c.revision + 1)
        .returning(table)
    )
    row = conn.execute(statement).mappings().one_or_none()
    if row is None:
        raise Fenced(f"{row_id} is not attempt {attempt}'s any more")
    return row


def renew(
    conn: Connection, table: sa.Table, row_id: str, attempt: int, values: Mapping[str, Any] | None = None
) -> Wish | None:
    """Renew a claim and return what is wished of it; raises Fenced.

    Only `values`, which people see, count as a change of the row; a bare heartbeat does not.
    """
    shown = {**values, "revision": table.c.revision + 1} if values else {}
    statement = (
        sa.update(table)
        .where(table.c.id == row_id, table.c.status == "running", table.c.attempt == attempt)
        .values(lease_seq=table.c.lease_seq + 1, **shown)
        .returning(table.c.wish)
    )
    row = conn.execute(statement).one_or_none()
    if row is None:
        raise Fenced(f"{row_id} is not attempt {attempt}'s any more")
    return Wish(row.wish) if row.wish else None


def held(conn: Connection, table: sa.Table) -> list[Held]:
    """Return every running claim."""
    query = sa.select(table.c.id, table.c.attempt, table.c.lease_seq).where(has_status(table, "running"))
    return [Held(*row) for row in conn.execute(query)]


def seize(conn: Connection, table: sa.Table, seen: Held) -> RowMapping | None:
    """Fence out a claim that did not move since it was seen; None where it did.

    Moves lease_seq, so that of two that seize only one succeeds; the caller decides the next state in the
    same transaction.
    """
    statement = (
        sa.update(table)
        .where(
            table.c.id == seen.id,
            table.c.status == "running",
            table.c.attempt == seen.attempt,
            table.c.lease_seq == seen.lease_seq,
        )
        .values(lease_seq=table.c.lease_seq + 1, revision=table.c.revision + 1)
        .returning(table)
    )
    return conn.execute(statement).mappings().one_or_none()


def _ordered(table: sa.Table, name: str) -> sa.ColumnElement[Any]:
    return table.c[name.removeprefix("-")].desc() if name.startswith("-") else table.c[name].asc()
