"""The dataset book: archives that became, or did not become, something to train on.

A dataset row is made when its archive is stored, together with the task that will look into it. The verdict
is written by that task's fenced transaction, through the functions at the end. Opens no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from api.domain import changes, fingerprints, rows, wire
from api.domain import tables as t
from api.domain.blobs import Blob
from api.domain.clock import SYSTEM_CLOCK, Clock
from api.domain.errors import Conflict, NotFound
from api.domain.failures import Failure, FailureCode
from api.domain.ids import new_id
from api.domain.paging import page
from api.domain.records import Dataset, DatasetStatus, IngestResult, JobStatus, Page, TaskStatus, Wish
from api.domain.store import Store, insert_or_ignore
from api.domain.uploads import check_quota

KIND_INGEST = "ingest"
MAX_NAMED_JOBS = 10


@dataclass(frozen=True)
class Created:
    """A dataset, and whether this upload made it or the same bytes were there under the same name."""

    dataset: Dataset
    created: bool


class DatasetBook:
    """Datasets of all owners."""

    def __init__(self, store: Store, clock: Clock = SYSTEM_CLOCK) -> None:
        self.store = store
        self.clock = clock

    def create(
        self,
        owner: str,
        name: str,
        archive: Blob,
        *,
        file_name: str,
        options: Mapping[str, Any] | None = None,
        max_owner_bytes: int | None = None,
    ) -> Created:
        """Enter an archive that is stored, and queue its ingest, which reads it by these options.

        The same bytes under the same name give the dataset that is there, and have it looked into again if
        the service failed at it; raises Conflict NAME_TAKEN for other bytes or options, QUOTA_EXCEEDED.
        """

        def write(conn: Connection) -> Created:
            check_quota(conn, owner, archive.size_bytes, max_owner_bytes, sha256=archive.sha256)
            now = self.clock.wall()
            values = {
                "id": new_id("ds"),
                "owner": owner,
                "name": name,
                "status": DatasetStatus.INGESTING,
                "file_name": file_name[:255],
                "sha256": archive.sha256,
                "size_bytes": archive.size_bytes,
                "classes": [],
                "splits": {},
                "options": dict(options) if options is not None else None,
                "created_at": now,
            }
            if not insert_or_ignore(conn, t.datasets, values):
                row = _same_bytes(conn, owner, name, archive.sha256)
                if options is not None and dict(options) != row["options"]:
                    raise _taken(row)
                if _service_failed(row):
                    _look_again(conn, row, now)
                return Created(rows.dataset(_one(conn, row["id"], owner)), created=False)
            size = archive.size_bytes
            insert_or_ignore(conn, t.blobs, {"sha256": archive.sha256, "size_bytes": size, "created_at": now})
            row = _one(conn, str(values["id"]), owner)
            _queue_ingest(conn, row, now)
            return Created(rows.dataset(row), created=True)

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

    def get(self, dataset_id: str, owner: str | None = None) -> Dataset:
        """Return a dataset; raises NotFound."""
        return self.store.read(lambda conn: rows.dataset(_one(conn, dataset_id, owner)))

    def list(self, owner: str | None = None, *, limit: int = 50, cursor: str | None = None) -> Page[Dataset]:
        """Return datasets, newest first; raises BadCursor."""
        conditions: list[sa.ColumnElement[bool]] = [t.datasets.c.deleted_at.is_(None)]
        if owner is not None:
            conditions.append(t.datasets.c.owner == owner)
        return self.store.read(
            lambda conn: page(conn, t.datasets, "ds", rows.dataset, conditions, limit, cursor)
        )

    def delete(self, dataset_id: str, owner: str | None = None) -> None:
        """Remove a dataset from sight and free its name; jobs that ended keep knowing it.

        An ingest on its way is cancelled; what it holds on disk is freed by the collector, or by
        `trainshed gc` at once. Raises NotFound, Conflict DATASET_IN_USE, with the jobs that need it.
        """

        def write(conn: Connection) -> None:
            _one(conn, dataset_id, owner, lock=True)
            _check_unused(conn, dataset_id)
            now = self.clock.wall()
            conn.execute(sa.update(t.datasets).where(t.datasets.c.id == dataset_id).values(deleted_at=now))
            _cancel_ingest(conn, dataset_id, now)

        self.store.write(write)

    def retry_ingest(self, dataset_id: str, owner: str | None = None) -> Dataset:
        """Look into an archive again after the service failed; raises NotFound, Conflict NOT_RETRYABLE.

        Asked again while that goes on, it gives the dataset as it is.
        """

        def write(conn: Connection) -> Dataset:
            row = _one(conn, dataset_id, owner, lock=True)
            if row["status"] == DatasetStatus.INGESTING:
                return rows.dataset(row)
            if not _service_failed(row):
                raise Conflict("only an ingest the service failed at can be retried", code="NOT_RETRYABLE")
            _look_again(conn, row, self.clock.wall())
            return rows.dataset(_one(conn, dataset_id, owner))

        return self.store.write(write)

    def confirm(self, dataset_id: str, owner: str | None, options: Mapping[str, Any]) -> Dataset:
        """Read the archive of a dataset that was only looked at, or was invalid, by these options.

        Asked again while that goes on, it gives the dataset as it is. Raises NotFound, Conflict
        NOT_CONFIRMABLE.
        """

        def write(conn: Connection) -> Dataset:
            row = _one(conn, dataset_id, owner, lock=True)
            if row["status"] == DatasetStatus.INGESTING and row["options"] == dict(options):
                return rows.dataset(row)
            if row["status"] not in (DatasetStatus.INSPECTED, DatasetStatus.INVALID):
                raise Conflict(f"the dataset is {row['status']}", code="NOT_CONFIRMABLE")
            change = sa.update(t.datasets).where(t.datasets.c.id == dataset_id)
            conn.execute(change.values(options=dict(options)))
            _look_again(conn, _one(conn, dataset_id, owner), self.clock.wall())
            return rows.dataset(_one(conn, dataset_id, owner))

        return self.store.write(write)


def put_ingest_result(conn: Connection, dataset_id: str, result: IngestResult, *, now: float) -> None:
    """Write the verdict on an archive; jobs that waited can be claimed, or fail with DATASET_INVALID.

    One that was only looked at leaves them waiting.
    """
    assert result.status is not DatasetStatus.INGESTING
    assert (result.manifest_hash is None) == (result.status is not DatasetStatus.READY)
    values = {
        "status": result.status,
        "manifest_hash": result.manifest_hash,
        "report_sha256": result.report_sha256,
        "statistics": dict(result.statistics) if result.statistics is not None else None,
        "classes": list(result.classes),
        "splits": dict(result.splits),
        "num_boxes": result.num_boxes,
        "num_errors": result.num_errors,
        "num_warnings": result.num_warnings,
        "files": dict(result.files) if result.files else None,
        "error": None,
        "finished_at": now,
    }
    conn.execute(sa.update(t.datasets).where(t.datasets.c.id == dataset_id).values(**values))
    if result.status is DatasetStatus.READY:
        _wake_waiting(conn, dataset_id)
        fingerprints.renew(conn, dataset_id)
    if result.status is not DatasetStatus.INVALID:
        return
    failure = Failure(
        FailureCode.DATASET_INVALID,
        f"the dataset has {result.num_errors} errors",
        place=dataset_id,
        evidence={"problems": f"/v1/datasets/{dataset_id}/problems"},
    )
    changes.fail_waiting(conn, dataset_id, failure, actor="ingest", now=now)


def put_ingest_error(conn: Connection, dataset_id: str, cause: Failure, *, now: float) -> None:
    """Write that no verdict could be reached; jobs that waited fail with SERVICE_ERROR."""
    failure = Failure(
        FailureCode.SERVICE_ERROR,
        f"the dataset could not be looked into: {cause.message}",
        place=dataset_id,
        evidence={"cause": cause.as_json()},
    )
    values = {"status": DatasetStatus.INVALID, "error": failure.as_json(), "finished_at": now}
    conn.execute(sa.update(t.datasets).where(t.datasets.c.id == dataset_id).values(**values))
    changes.fail_waiting(conn, dataset_id, failure, actor="ingest", now=now)


def _one(conn: Connection, dataset_id: str, owner: str | None, *, lock: bool = False) -> RowMapping:
    query = sa.select(t.datasets).where(t.datasets.c.id == dataset_id, t.datasets.c.deleted_at.is_(None))
    if owner is not None:
        query = query.where(t.datasets.c.owner == owner)
    row = conn.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    if row is None:
        raise NotFound(f"no dataset {dataset_id[:60]!r}", code="DATASET_NOT_FOUND")
    return row


def _check_unused(conn: Connection, dataset_id: str) -> None:
    open_states = [status for status in JobStatus if not status.is_final]
    needing = t.jobs.c.dataset_id == dataset_id, t.jobs.c.status.in_(open_states)
    count = conn.execute(sa.select(sa.func.count()).where(*needing)).scalar_one()
    if not count:
        return
    query = sa.select(t.jobs.c.id).where(*needing).order_by(t.jobs.c.id).limit(MAX_NAMED_JOBS)
    named = list(conn.execute(query).scalars())
    more = f" and {count - len(named)} more" if count > len(named) else ""
    noun = "unfinished job needs" if count == 1 else "unfinished jobs need"
    raise Conflict(f"{count} {noun} this dataset: {', '.join(named)}{more}", code="DATASET_IN_USE")


def _service_failed(row: RowMapping) -> bool:
    error = row["error"] or {}
    return bool(row["status"] == DatasetStatus.INVALID and error.get("code") == FailureCode.SERVICE_ERROR)


def _look_again(conn: Connection, row: RowMapping, now: float) -> None:
    values = {"status": DatasetStatus.INGESTING, "error": None, "finished_at": None}
    conn.execute(sa.update(t.datasets).where(t.datasets.c.id == row["id"]).values(**values))
    _queue_ingest(conn, row, now)


def _same_bytes(conn: Connection, owner: str, name: str, sha256: str) -> RowMapping:
    row = conn.execute(_named(owner, name).with_for_update()).mappings().one()
    if row["sha256"] != sha256:
        raise _taken(row)
    return row


def _named(owner: str, name: str) -> sa.Select[Any]:
    return sa.select(t.datasets).where(
        t.datasets.c.owner == owner, t.datasets.c.name == name, t.datasets.c.deleted_at.is_(None)
    )


def _taken(row: RowMapping) -> Conflict:
    return Conflict(f"there is another dataset named {row['name']!r}: {row['id']}", code="NAME_TAKEN")


def _queue_ingest(conn: Connection, dataset: RowMapping, now: float) -> None:
    conn.execute(
        sa.insert(t.tasks).values(
            id=new_id("task"),
            owner=dataset["owner"],
            kind=KIND_INGEST,
            subject_id=dataset["id"],
            payload=_payload(dataset),
            queue=wire.QUEUE_INGEST,
            status=TaskStatus.QUEUED,
            created_at=now,
        )
    )


def _payload(dataset: RowMapping) -> dict[str, Any]:
    payload = {"sha256": dataset["sha256"], "file_name": dataset["file_name"]}
    return payload if dataset["options"] is None else payload | {"options": dataset["options"]}


def _cancel_ingest(conn: Connection, dataset_id: str, now: float) -> None:
    mine = sa.and_(t.tasks.c.subject_id == dataset_id, t.tasks.c.kind == KIND_INGEST)
    bump = {"revision": t.tasks.c.revision + 1}
    conn.execute(
        sa.update(t.tasks)
        .where(mine, t.tasks.c.status == TaskStatus.QUEUED)
        .values(status=TaskStatus.CANCELLED, finished_at=now, **bump)
    )
    conn.execute(
        sa.update(t.tasks)
        .where(mine, t.tasks.c.status == TaskStatus.RUNNING)
        .values(wish=Wish.CANCEL, **bump)
    )


def _wake_waiting(conn: Connection, dataset_id: str) -> None:
    conn.execute(
        sa.update(t.jobs)
        .where(t.jobs.c.dataset_id == dataset_id, t.jobs.c.status == JobStatus.QUEUED)
        .values(phase=None, revision=t.jobs.c.revision + 1)
    )
