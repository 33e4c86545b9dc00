"""The architecture book: model YAMLs that were found to be networks. Parsing and planning happen before."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from api.domain import rows
from api.domain import tables as t
from api.domain.clock import SYSTEM_CLOCK, Clock
from api.domain.errors import Conflict, NotFound
from api.domain.ids import new_id
from api.domain.paging import page
from api.domain.records import Architecture, Page
from api.domain.store import Store, insert_or_ignore


@dataclass(frozen=True)
class NewArchitecture:
    """A model YAML with what its plan says."""

    owner: str
    name: str
    text: str
    num_parameters: int
    gflops: float | None
    strides: Sequence[float]
    num_classes: int | None
    summary: Mapping[str, Any]


class ArchitectureBook:
    """Architectures of all owners."""

    def __init__(self, store: Store, clock: Clock = SYSTEM_CLOCK) -> None:
        self.store = store
        self.clock = clock

    def create(self, new: NewArchitecture) -> tuple[Architecture, bool]:
        """Enter an architecture; returns it and whether it is new.

        The same text under the same name gives the one that is there; raises Conflict NAME_TAKEN for another.
        """
        digest = hashlib.sha256(new.text.encode()).hexdigest()
        table = t.architectures

        def write(conn: Connection) -> tuple[Architecture, bool]:
            values = {
                **new.__dict__,
                "id": new_id("arch"),
                "hash": digest,
                "strides": list(new.strides),
                "summary": dict(new.summary),
                "created_at": self.clock.wall(),
            }
            created = insert_or_ignore(conn, table, values)
            query = sa.select(table).where(table.c.owner == new.owner, table.c.name == new.name)
            row = conn.execute(query).mappings().one()
            if row["hash"] != digest:
                raise Conflict(
                    f"there is another architecture named {new.name!r}: {row['id']}", code="NAME_TAKEN"
                )
            return rows.architecture(row), created

        return self.store.write(write)

    def get(self, architecture_id: str, owner: str | None = None) -> Architecture:
        """Return an architecture; raises NotFound."""
        query = sa.select(t.architectures).where(t.architectures.c.id == architecture_id)
        if owner is not None:
            query = query.where(t.architectures.c.owner == owner)
        row = self.store.read(lambda conn: conn.execute(query).mappings().one_or_none())
        if row is None:
            raise NotFound(f"no architecture {architecture_id[:60]!r}", code="ARCHITECTURE_NOT_FOUND")
        return rows.architecture(row)

    def list(
        self, owner: str | None = None, *, limit: int = 50, cursor: str | None = None
    ) -> Page[Architecture]:
        """Return architectures, newest first; raises BadCursor."""
        conditions = [t.architectures.c.owner == owner] if owner is not None else []
        return self.store.read(
            lambda conn: page(conn, t.architectures, "arch", rows.architecture, conditions, limit, cursor)
        )
