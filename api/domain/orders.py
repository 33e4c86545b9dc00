"""What people may do with a job that is in the book: wishes, edits, deletion.

The owner is part of every question: another owner's job does not exist. None as owner means the service
itself or an administrator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from api.domain import changes, figures, rows
from api.domain import tables as t
from api.domain.errors import Changed, Conflict, NotFound
from api.domain.records import DatasetStatus, Job, JobStatus, Wish
from api.domain.rules import granted, outranked_by
from api.domain.runs import RunBook
from api.domain.waiting import WAITING_FOR_DATASET


class OrderBook(RunBook):
    """A job's owner, and what the owner wants of it."""

    def cancel(self, job_id: str, owner: str | None = None) -> Job:
        """Drop a job: at once if nothing runs, else as the worker's next heartbeat is answered.

        Returns the job (cancelled, or running with the wish). Cancelling a cancelled job changes nothing;
        raises NotFound, Conflict JOB_FINAL for one that ended otherwise.
        """
        return self._wish_for(job_id, owner, Wish.CANCEL)

    def stop(self, job_id: str, owner: str | None = None) -> Job:
        """End a job and keep its best so far; without one it is cancelled. Raises as `cancel`.

        If nothing runs and the best lies in a checkpoint only, the job is queued and the wish stands until
        the next attempt has stored the weights.
        """
        return self._wish_for(job_id, owner, Wish.STOP)

    def pause(self, job_id: str, owner: str | None = None) -> Job:
        """Let a job checkpoint and give its place back; a queued one is held. Raises as `cancel`."""
        return self._wish_for(job_id, owner, Wish.PAUSE)

    def _wish_for(self, job_id: str, owner: str | None, wish: Wish) -> Job:
        def write(conn: Connection) -> Job:
            row = find_job(conn, job_id, owner, lock=True)
            status = JobStatus(row["status"])
            # What has succeeded has delivered what it had.
            has_weights = status is JobStatus.SUCCEEDED or figures.has_weights(conn, row)
            after = granted(wish, has_best=figures.has_best(row), has_weights=has_weights)
            if status is after and after is not JobStatus.QUEUED:
                return rows.job(row)
            _refuse_final(status)
            outranked = row["wish"] is not None and wish in outranked_by(Wish(row["wish"]))
            if status in (JobStatus.RUNNING, after) or outranked:
                return rows.job(_put_wish(conn, row, wish))
            values = {"wish": wish, "phase": _waiting_phase(conn, row)} if after is JobStatus.QUEUED else {}
            actor, now = _actor(owner), self.clock.wall()
            moved = changes.move(conn, row, after, actor=actor, reason=wish.value, now=now, values=values)
            return rows.job(moved)

        return self.store.write(write)

    def activate(self, job_id: str, owner: str | None = None) -> Job:
        """Queue a paused job, take back a pause that is not yet carried out, end the wait before a retry.

        A stop is taken back as long as the job is queued. Raises NotFound, Conflict JOB_FINAL.
        """

        def write(conn: Connection) -> Job:
            row = find_job(conn, job_id, owner, lock=True)
            status = JobStatus(row["status"])
            _refuse_final(status)
            if status is JobStatus.PAUSED:
                actor, now = _actor(owner), self.clock.wall()
                values = {"phase": _waiting_phase(conn, row)}
                moved = changes.move(
                    conn, row, JobStatus.QUEUED, actor=actor, reason="activate", now=now, values=values
                )
                return rows.job(moved)
            taken_back = row["wish"] == Wish.PAUSE or status is JobStatus.QUEUED
            kept = None if taken_back else row["wish"]
            return rows.job(_edit(conn, row, {"wish": kept, "not_before": None}))

        return self.store.write(write)

    def edit(
        self,
        job_id: str,
        owner: str | None = None,
        *,
        expected: int | None = None,
        name: str | None = None,
        tags: Sequence[str] | None = None,
        priority: int | None = None,
    ) -> Job:
        """Change name, tags or priority (None leaves it) of a job that has not ended.

        `expected` is the revision the caller read, None for whatever it is now. Raises NotFound, Changed for
        another revision, Conflict JOB_FINAL. A new priority has its line in the audit trail.
        """
        given = {"name": name, "tags": list(tags) if tags is not None else None, "priority": priority}

        def write(conn: Connection) -> Job:
            row = find_job(conn, job_id, owner, lock=True)
            if expected is not None and row["revision"] != expected:
                raise Changed(f"the job is at revision {row['revision']}, not {expected}: read it again")
            _refuse_final(JobStatus(row["status"]))
            values = {key: value for key, value in given.items() if value is not None and value != row[key]}
            if priority is not None and "priority" in values:
                self._trace_priority(conn, row, priority, actor=_actor(owner))
            return rows.job(_edit(conn, row, values) if values else row)

        return self.store.write(write)

    def _trace_priority(self, conn: Connection, row: RowMapping, priority: int, *, actor: str) -> None:
        """Leave a line in the audit trail: who overtook whom is asked for later. The state stays."""
        status = JobStatus(row["status"])
        changes.record(
            conn,
            row["id"],
            before=status,
            after=status,
            attempt=row["attempt"],
            actor=actor,
            reason=f"priority {row['priority']} -> {priority}",
            now=self.clock.wall(),
        )

    def reprioritise(
        self, job_id: str, priority: int, owner: str | None = None, *, expected: int | None = None
    ) -> Job:
        """Move a job before those of a lower priority; raises as `edit`."""
        return self.edit(job_id, owner, expected=expected, priority=priority)

    def delete(self, job_id: str, owner: str | None = None) -> Job:
        """Forget a job that has ended, with its attempts, epochs and artifacts; return what it was.

        Its blobs and its folder are left to the collector. Raises NotFound, Conflict JOB_NOT_FINAL.
        """

        def write(conn: Connection) -> Job:
            row = find_job(conn, job_id, owner, lock=True)
            if not JobStatus(row["status"]).is_final:
                raise Conflict(f"the job is {row['status']}: cancel it first", code="JOB_NOT_FINAL")
            conn.execute(sa.delete(t.jobs).where(t.jobs.c.id == job_id))
            return rows.job(row)

        return self.store.write(write)


def find_job(conn: Connection, job_id: str, owner: str | None, *, lock: bool = False) -> RowMapping:
    """Return the row of an owner's job; raises NotFound."""
    query = sa.select(t.jobs).where(t.jobs.c.id == job_id)
    if owner is not None:
        query = query.where(t.jobs.c.owner == owner)
    row = conn.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    if row is None:
        raise NotFound(f"no job {job_id[:60]!r}", code="JOB_NOT_FOUND")
    return row


def _actor(owner: str | None) -> str:
    return f"user:{owner or 'admin'}"


def _refuse_final(status: JobStatus) -> None:
    if status.is_final:
        ended = "was cancelled" if status is JobStatus.CANCELLED else status.value
        raise Conflict(f"the job has ended: it {ended}", code="JOB_FINAL")


def _edit(conn: Connection, row: RowMapping, values: dict[str, Any]) -> RowMapping:
    """Write to a locked row that stays in its state."""
    statement = (
        sa.update(t.jobs)
        .where(t.jobs.c.id == row["id"], t.jobs.c.status == row["status"])
        .values(**values, revision=t.jobs.c.revision + 1)
        .returning(t.jobs)
    )
    return conn.execute(statement).mappings().one()


def _put_wish(conn: Connection, row: RowMapping, wish: Wish) -> RowMapping:
    """Write a wish, unless an equal or stronger one stands; it ends the wait before a retry."""
    weaker = sa.or_(t.jobs.c.wish.is_(None), t.jobs.c.wish.in_(outranked_by(wish)))
    statement = (
        sa.update(t.jobs)
        .where(t.jobs.c.id == row["id"], t.jobs.c.status == row["status"], weaker)
        .values(wish=wish, not_before=None, revision=t.jobs.c.revision + 1)
        .returning(t.jobs)
    )
    return conn.execute(statement).mappings().one_or_none() or row


def _waiting_phase(conn: Connection, row: RowMapping) -> str | None:
    status = conn.execute(
        sa.select(t.datasets.c.status).where(t.datasets.c.id == row["dataset_id"])
    ).scalar_one()
    return WAITING_FOR_DATASET if status == DatasetStatus.INGESTING else None
