"""The book of weights: files that became, or did not become, something a training can start from.

A row is made when its file is stored, together with the task that will read it. The verdict is written by
that task's fenced transaction, through the functions at the end. Opens no file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from api.domain import rows, wire
from api.domain import tables as t
from api.domain.blobs import Blob
from api.domain.clock import SYSTEM_CLOCK, Clock
from api.domain.errors import Conflict, NotFound
from api.domain.failures import Failure, FailureCode
from api.domain.ids import is_id, new_id
from api.domain.paging import page
from api.domain.records import JobStatus, Page, TaskStatus, Wish
from api.domain.store import Store, insert_or_ignore
from api.domain.uploads import check_quota
from api.domain.weights_records import WeighingResult, Weights, WeightsStatus

PREFIX = "wts"
KIND_WEIGHTS = "weights"
MAX_NAMED_JOBS = 10
_NO_ONE = "WEIGHTS_NOT_FOUND"


@dataclass(frozen=True)
class CreatedWeights:
    """Weights, and whether this upload made them or the same bytes were there under the same name."""

    weights: Weights
    created: bool


class WeightsBook:
    """Weights of all owners."""

    def __init__(self, store: Store, clock: Clock = SYSTEM_CLOCK) -> None:
        self.store = store
        self.clock = clock

    def create(
        self, owner: str, name: str, file: Blob, *, file_name: str, max_owner_bytes: int | None = None
    ) -> CreatedWeights:
        """Enter a file that is stored, and queue its import.

        The same bytes under the same name give the weights that are there, read again if the service failed
        at them; raises Conflict NAME_TAKEN for other bytes, QUOTA_EXCEEDED.
        """

        def write(conn: Connection) -> CreatedWeights:
            check_quota(conn, owner, file.size_bytes, max_owner_bytes, sha256=file.sha256)
            now = self.clock.wall()
            values = {
                "id": new_id(PREFIX),
                "owner": owner,
                "name": name,
                "status": WeightsStatus.IMPORTING,
                "file_name": file_name[:255],
                "sha256": file.sha256,
                "size_bytes": file.size_bytes,
                "classes": [],
                "created_at": now,
            }
            if not insert_or_ignore(conn, t.weights, values):
                row = conn.execute(_named(owner, name).with_for_update()).mappings().one()
                if row["sha256"] != file.sha256:
                    raise _taken(row)
                if row["status"] == WeightsStatus.FAILED:
                    _read_again(conn, row, now)
                return CreatedWeights(rows.weights(_one(conn, row["id"], owner)), created=False)
            size = file.size_bytes
            insert_or_ignore(conn, t.blobs, {"sha256": file.sha256, "size_bytes": size, "created_at": now})
            row = _one(conn, str(values["id"]), owner)
            _queue_import(conn, row, now)
            return CreatedWeights(rows.weights(row), created=True)

        return self.store.write(write)

    def check_name(self, owner: str, name: str, *, sha256: str | None, size_bytes: int | None) -> None:
        """Raise Conflict NAME_TAKEN if a name belongs to other bytes than these, by what is known of them."""

        def read(conn: Connection) -> None:
            row = conn.execute(_named(owner, name)).mappings().one_or_none()
            if row is None:
                return
            same_size = size_bytes is None or size_bytes == row["size_bytes"]
            if not same_size or (sha256 is not None and sha256 != row["sha256"]):
                raise _taken(row)

        self.store.read(read)

    def get(self, weights_id: str, owner: str | None = None) -> Weights:
        """Return weights by their id; raises NotFound."""
        return self.store.read(lambda conn: rows.weights(_one(conn, weights_id, owner)))

    def find(self, wanted: str, owner: str) -> Weights:
        """Return an owner's weights by id or name; raises NotFound."""
        if is_id(wanted, PREFIX):
            return self.get(wanted, owner)
        query = _named(owner, wanted)
        row = self.store.read(lambda conn: conn.execute(query).mappings().one_or_none())
        if row is None:
            raise NotFound(f"no weights {wanted[:60]!r}", code=_NO_ONE)
        return rows.weights(row)

    def list(self, owner: str | None = None, *, limit: int = 50, cursor: str | None = None) -> Page[Weights]:
        """Return weights, newest first; raises BadCursor."""
        conditions: list[sa.ColumnElement[bool]] = [t.weights.c.deleted_at.is_(None)]
        if owner is not None:
            conditions.append(t.weights.c.owner == owner)
        return self.store.read(
            lambda conn: page(conn, t.weights, PREFIX, rows.weights, conditions, limit, cursor)
        )

    def delete(self, weights_id: str, owner: str | None = None) -> None:
        """Remove weights from sight and free their name; jobs that ended keep knowing them.

        An import on its way is cancelled. Raises NotFound, Conflict WEIGHTS_IN_USE, with the jobs that need
        them.
        """

        def write(conn: Connection) -> None:
            _one(conn, weights_id, owner, lock=True)
            _check_unused(conn, weights_id)
            now = self.clock.wall()
            change = sa.update(t.weights).where(t.weights.c.id == weights_id)
            conn.execute(change.values(deleted_at=now, revision=t.weights.c.revision + 1))
            _cancel_import(conn, weights_id, now)

        self.store.write(write)


def put_result(conn: Connection, weights_id: str, result: WeighingResult, *, now: float) -> None:
    """Write the verdict on a file."""
    assert result.status in (WeightsStatus.READY, WeightsStatus.INVALID)
    assert (result.stored_sha256 is None) == (result.status is not WeightsStatus.READY)
    values = {**result.__dict__, "classes": list(result.classes)}
    values["provenance"] = dict(result.provenance) if result.provenance is not None else None
    _put(conn, weights_id, {**values, "error": None, "finished_at": now})


def put_error(conn: Connection, weights_id: str, cause: Failure, *, now: float) -> None:
    """Write that no verdict could be reached."""
    failure = Failure(
        FailureCode.SERVICE_ERROR,
        f"the weights could not be read: {cause.message}",
        place=weights_id,
        evidence={"cause": cause.as_json()},
    )
    _put(conn, weights_id, {"status": WeightsStatus.FAILED, "error": failure.as_json(), "finished_at": now})


def start_weights(conn: Connection, weights_id: str | None, owner: str) -> dict[str, str | None]:
    """Return what a new job's row says of the weights it starts from, their state locked meanwhile.

    Raises NotFound, Conflict WEIGHTS_NOT_READY.
    """
    if weights_id is None:
        return {"weights_id": None, "weights_sha256": None}
    row = _one(conn, weights_id, owner, lock=True)
    if row["status"] != WeightsStatus.READY:
        raise Conflict(f"the weights are {row['status']}", code="WEIGHTS_NOT_READY")
    return {"weights_id": weights_id, "weights_sha256": row["stored_sha256"]}


def _put(conn: Connection, weights_id: str, values: dict[str, Any]) -> None:
    change = sa.update(t.weights).where(t.weights.c.id == weights_id)
    conn.execute(change.values(**values, revision=t.weights.c.revision + 1))


def _one(conn: Connection, weights_id: str, owner: str | None, *, lock: bool = False) -> RowMapping:
    query = sa.select(t.weights).where(t.weights.c.id == weights_id, t.weights.c.deleted_at.is_(None))
    if owner is not None:
        query = query.where(t.weights.c.owner == owner)
    row = conn.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    if row is None:
        raise NotFound(f"no weights {weights_id[:60]!r}", code=_NO_ONE)
    return row


def _named(owner: str, name: str) -> sa.Select[Any]:
    return sa.select(t.weights).where(
        t.weights.c.owner == owner, t.weights.c.name == name, t.weights.c.deleted_at.is_(None)
    )


def _taken(row: RowMapping) -> Conflict:
    return Conflict(f"there are other weights named {row['name']!r}: {row['id']}", code="NAME_TAKEN")


def _check_unused(conn: Connection, weights_id: str) -> None:
    open_states = [status for status in JobStatus if not status.is_final]
    needing = t.jobs.c.weights_id == weights_id, t.jobs.c.status.in_(open_states)
    count = conn.execute(sa.select(sa.func.count()).where(*needing)).scalar_one()
    if not count:
        return
    query = sa.select(t.jobs.c.id).where(*needing).order_by(t.jobs.c.id).limit(MAX_NAMED_JOBS)
    named = list(conn.execute(query).scalars())
    more = f" and {count - len(named)} more" if count > len(named) else ""
    noun = "unfinished job needs" if count == 1 else "unfinished jobs need"
    raise Conflict(f"{count} {noun} these weights: {', '.join(named)}{more}", code="WEIGHTS_IN_USE")


def _read_again(conn: Connection, row: RowMapping, now: float) -> None:
    _put(conn, row["id"], {"status": WeightsStatus.IMPORTING, "error": None, "finished_at": None})
    _queue_import(conn, row, now)


def _queue_import(conn: Connection, weights: RowMapping, now: float) -> None:
    """Queue the reading among the ingests: their slots wait behind no training, and have torch as well."""
    conn.execute(
        sa.insert(t.tasks).values(
            id=new_id("task"),
            owner=weights["owner"],
            kind=KIND_WEIGHTS,
            subject_id=weights["id"],
            payload={"sha256": weights["sha256"], "file_name": weights["file_name"]},
            queue=wire.QUEUE_INGEST,
            status=TaskStatus.QUEUED,
            created_at=now,
        )
    )


def _cancel_import(conn: Connection, weights_id: str, now: float) -> None:
    mine = sa.and_(t.tasks.c.subject_id == weights_id, t.tasks.c.kind == KIND_WEIGHTS)
    bump = {"revision": t.tasks.c.revision + 1}
    conn.execute(
        sa.update(t.tasks)
        .where(mine, t.tasks.c.status == TaskStatus.QUEUED)
        .values(status=TaskStatus.CANCELLED, finished_at=now, **bump)
    )
    running = sa.update(t.tasks).where(mine, t.tasks.c.status == TaskStatus.RUNNING)
    conn.execute(running.values(wish=Wish.CANCEL, **bump))
