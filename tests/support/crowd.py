"""A book that has been used for years: very many finished jobs, copies of one, in a few statements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from api.domain import tables as t
from api.domain.ids import new_id
from api.domain.store import Store

made = sa.table("made", sa.column("id", sa.String), sa.column("number", sa.Integer))
number = made.c.number


def copy_job(store: Store, job_id: str, count: int, **changed: Any) -> list[str]:
    """Insert copies of a job with its attempts and transitions; return their ids, oldest first.

    `changed` holds columns of the jobs that differ, as values or as SQL of `number` (from 0 on). PostgreSQL's
    planner is told of them, as autovacuum would tell it soon.
    """
    ids = [new_id("job") for _ in range(count)]
    ids.sort()
    store.write(lambda conn: _insert(conn, job_id, ids, changed))
    if store.dialect == "postgresql":
        store.write(lambda conn: conn.exec_driver_sql("ANALYZE").rowcount)
    return ids


def _insert(conn: Connection, job_id: str, ids: Sequence[str], changed: dict[str, Any]) -> None:
    conn.exec_driver_sql("CREATE TEMPORARY TABLE made (id VARCHAR(48), number INTEGER)")
    for start in range(0, len(ids), 10_000):
        part = [{"id": one, "number": start + n} for n, one in enumerate(ids[start : start + 10_000])]
        conn.execute(sa.insert(made), part)
    for table, key in ((t.jobs, "id"), (t.job_attempts, "job_id"), (t.job_transitions, "job_id")):
        columns = [column for column in table.c if column.name != "seq"]
        values = []
        for column in columns:
            if column.name == key:
                values.append(made.c.id)
            elif table is t.jobs and column.name in changed:
                value = changed[column.name]
                values.append(
                    value if isinstance(value, sa.ColumnElement) else sa.literal(value, column.type)
                )
            else:
                values.append(column)
        source = sa.select(*values).select_from(made).join(table, table.c[key] == job_id)
        conn.execute(sa.insert(table).from_select([column.name for column in columns], source))
    conn.exec_driver_sql("DROP TABLE made")
