"""Pages by key: ids sort by the time they were made, so the cursor is the last id that was given out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from api.domain.errors import BadCursor
from api.domain.ids import is_id
from api.domain.records import Page

T = TypeVar("T")
MAX_LIMIT = 500


def page(
    conn: Connection,
    table: sa.Table,
    prefix: str,
    make: Callable[[RowMapping], T],
    conditions: Sequence[sa.ColumnElement[bool]],
    limit: int,
    cursor: str | None,
    *,
    any_of: Sequence[sa.ColumnElement[bool]] = (),
) -> Page[T]:
    """Return up to `limit` rows (1..500) older than the cursor, newest first; raises BadCursor.

    With `any_of`, rows that meet one of these conditions, no two of which may hold for one row.
    """
    query = sa.select(table).where(*conditions).order_by(table.c.id.desc())
    if cursor is not None:
        if not is_id(cursor, prefix):
            raise BadCursor("this cursor was not given out by this list")
        query = query.where(table.c.id < cursor)
    limit = max(1, min(limit, MAX_LIMIT))
    # One short look into an index for each: an OR of them may read every row there is.
    found = [
        row
        for part in ([query.where(one) for one in any_of] or [query])
        for row in conn.execute(part.limit(limit + 1)).mappings()
    ]
    found.sort(key=lambda row: str(row["id"]), reverse=True)
    items = tuple(make(row) for row in found[:limit])
    return Page(items, str(found[limit - 1]["id"]) if len(found) > limit else None)
