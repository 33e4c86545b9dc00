"""The job book: submissions, and what people see of jobs; what they want of them is `orders`.

The owner is part of every question: another owner's job does not exist. None as owner means the service
itself or an administrator.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from api.domain import changes, fingerprints, rows, waiting
from api.domain import tables as t
from api.domain.errors import Conflict, LimitReached, NotFound, RunExists
from api.domain.failures import FailureCode
from api.domain.fingerprints import OnDuplicate
from api.domain.ids import new_id
from api.domain.orders import OrderBook, find_job
from api.domain.paging import page
from api.domain.records import (
    Artifact,
    Attempt,
    DatasetStatus,
    EpochRow,
    Job,
    JobStatus,
    NewJob,
    Page,
    QueueState,
    Transition,
    Waiting,
)
from api.domain.store import insert_or_ignore, serialise
from api.domain.waiting import WAITING_FOR_DATASET
from api.domain.weights import start_weights

__all__ = ["LOG_KIND", "WAITING_FOR_DATASET", "JobBook", "Submitted"]

LOG_KIND = "log"
_MOST_LABELLED = 20


@dataclass(frozen=True)
class Submitted:
    """A job, and whether this submission made it, or an earlier one of the same key or the same run did."""

    job: Job
    created: bool
    is_reused: bool = False


class JobBook(OrderBook):
    """Jobs, their transitions, attempts, epochs and artifacts."""

    def submit(
        self,
        new: NewJob,
        *,
        key: str | None = None,
        fingerprint: str | None = None,
        on_duplicate: OnDuplicate = OnDuplicate.NEW,
    ) -> Submitted:
        """Queue a job; with an idempotency key, at most once.

        `fingerprint` tells submissions apart (the submission itself by default); `on_duplicate` says what
        becomes of one that is the same run as another. Raises NotFound for dataset or architecture or parent,
        Conflict DATASET_INVALID, Conflict IDEMPOTENCY_CONFLICT for a key that was used with another
        fingerprint, RunExists, LimitReached for an owner with too many queued jobs.
        """
        print_ = fingerprint or _fingerprint(new)

        def write(conn: Connection) -> Submitted:
            job_id = new_id("job")
            now = self.clock.wall()
            if key is not None:
                values = {"owner": new.owner, "key": key, "fingerprint": print_, "job_id": job_id}
                if not insert_or_ignore(conn, t.idempotency_keys, {**values, "created_at": now}):
                    known = _known(conn, new.owner, key, print_)
                    assert known is not None, "the key is there: it could not be inserted"
                    return Submitted(known, created=False)
            submitted = self._insert(conn, new, job_id, now, on_duplicate)
            if key is not None and submitted.is_reused:
                _point(conn, new.owner, key, submitted.job.id)
            return submitted

        return self.store.write(write)

    def submitted_as(self, owner: str, key: str, fingerprint: str) -> Job | None:
        """Return the job of an earlier submission with this key, None for a new key.

        Raises Conflict IDEMPOTENCY_CONFLICT for a key that was used with another fingerprint.
        """
        return self.store.read(lambda conn: _known(conn, owner, key, fingerprint))

    def identical(self, owner: str, fingerprint: str) -> Job | None:
        """Return the owner's job that is or will be the same run, if there is one."""

        def look(conn: Connection) -> Job | None:
            row = fingerprints.identical(conn, owner, fingerprint)
            return rows.job(row) if row is not None else None

        return self.store.read(look)

    def _insert(
        self, conn: Connection, new: NewJob, job_id: str, now: float, on_duplicate: OnDuplicate
    ) -> Submitted:
        dataset = _referenced(conn, t.datasets, new.dataset_id, new.owner, "dataset")
        architecture = _referenced(conn, t.architectures, new.architecture_id, new.owner, "architecture")
        if dataset["status"] == DatasetStatus.INVALID:
            raise Conflict("the dataset is invalid; see its report", code=FailureCode.DATASET_INVALID.value)
        if dataset["status"] == DatasetStatus.INSPECTED:
            raise Conflict("the dataset was only looked at; confirm it first", code="DATASET_NOT_CONFIRMED")
        if new.parent_id is not None:
            find_job(conn, new.parent_id, new.owner)
        weights = start_weights(conn, new.weights_id, new.owner)
        fingerprint = fingerprints.of_rows(
            dataset, architecture, config_hash=new.config_hash, weights_sha256=weights["weights_sha256"]
        )
        if (other := _identical(conn, new.owner, fingerprint, on_duplicate)) is not None:
            return Submitted(other, created=False, is_reused=True)
        self._check_queued(conn, new.owner)
        ready = dataset["status"] == DatasetStatus.READY
        statement = (
            sa.insert(t.jobs)
            .values(
                id=job_id,
                owner=new.owner,
                name=new.name or f"{architecture['name']} on {dataset['name']}"[:120],
                tags=list(new.tags),
                config=dict(new.config),
                config_hash=new.config_hash,
                dataset_id=new.dataset_id,
                architecture_id=new.architecture_id,
                parent_id=new.parent_id,
                queue=new.queue,
                priority=new.priority,
                max_runtime_s=new.max_runtime_s or self.settings.max_runtime_s,
                simulated=self.settings.simulate,
                status=JobStatus.QUEUED,
                phase=None if ready else WAITING_FOR_DATASET,
                created_at=now,
                fingerprint=fingerprint,
                **weights,
            )
            .returning(t.jobs)
        )
        row = conn.execute(statement).mappings().one()
        changes.record(
            conn,
            job_id,
            before=None,
            after=JobStatus.QUEUED,
            attempt=0,
            actor=f"user:{new.owner}",
            reason="submitted",
            now=now,
        )
        return Submitted(rows.job(row), created=True)

    def _check_queued(self, conn: Connection, owner: str) -> None:
        limit = self.settings.max_queued_per_owner
        if limit is None:
            return
        serialise(conn, f"queued {owner}")
        queued = sa.select(sa.func.count()).where(
            t.jobs.c.owner == owner, t.jobs.c.status.in_([JobStatus.QUEUED, JobStatus.PAUSED])
        )
        if conn.execute(queued).scalar_one() >= limit:
            raise LimitReached(f"there are {limit} jobs queued already, as many as one owner may have")

    def get(self, job_id: str, owner: str | None = None) -> Job:
        """Return a job; raises NotFound."""
        return self.store.read(lambda conn: rows.job(find_job(conn, job_id, owner)))

    def list(
        self,
        owner: str | None = None,
        *,
        status: Sequence[JobStatus] = (),
        dataset_id: str | None = None,
        fingerprint: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[Job]:
        """Return jobs, newest first; raises BadCursor."""
        conditions = [t.jobs.c.owner == owner] if owner is not None else []
        any_of = [t.jobs.c.status == one for one in set(status)]
        if dataset_id is not None:
            conditions.append(t.jobs.c.dataset_id == dataset_id)
        if fingerprint is not None:
            conditions.append(t.jobs.c.fingerprint == fingerprint)
        return self.store.read(
            lambda conn: page(conn, t.jobs, "job", rows.job, conditions, limit, cursor, any_of=any_of)
        )

    def latest(self, label: str, owner: str | None = None) -> Job | None:
        """Return the newest succeeded job that has a label as a tag or as its name."""
        quoted = json.dumps(label)
        like = sa.cast(t.jobs.c.tags, sa.String).contains(quoted, autoescape=True)
        query = (
            sa.select(t.jobs)
            .where(t.jobs.c.status == JobStatus.SUCCEEDED, sa.or_(t.jobs.c.name == label, like))
            .order_by(t.jobs.c.id.desc())
            .limit(_MOST_LABELLED)
        )
        if owner is not None:
            query = query.where(t.jobs.c.owner == owner)
        found = self.store.read(lambda conn: [rows.job(row) for row in conn.execute(query).mappings()])
        # SQLite's LIKE knows no case.
        return next((job for job in found if label in job.tags or job.name == label), None)

    def revisions(self, job_ids: Sequence[str]) -> dict[str, int]:
        """Return the revision of each of these jobs that exists: what a watcher polls."""
        query = sa.select(t.jobs.c.id, t.jobs.c.revision).where(t.jobs.c.id.in_(list(job_ids)))
        return self.store.read(lambda conn: {row.id: row.revision for row in conn.execute(query)})

    def waiting(self, jobs: Sequence[Job]) -> Sequence[tuple[Job, Waiting | None]]:
        """Return these jobs, each queued one with what it waits for, however many they are.

        The queued ones are read anew in the same snapshot: one that was claimed since it was read comes back
        running, never as queued without a place.
        """
        now = self.clock.wall()
        queued = [job.id for job in jobs if job.status is JobStatus.QUEUED]
        if not queued:
            return [(job, None) for job in jobs]

        def look(conn: Connection) -> tuple[dict[str, Job], dict[str, Waiting]]:
            query = sa.select(t.jobs).where(t.jobs.c.id.in_(queued))
            fresh = {row["id"]: rows.job(row) for row in conn.execute(query).mappings()}
            return fresh, waiting.look(conn, list(fresh.values()), self.settings, now)

        fresh, reasons = self.store.read(look)
        return [(fresh.get(job.id, job), reasons.get(job.id)) for job in jobs]

    def queues(self) -> Sequence[QueueState]:
        """Return every queue of jobs that has work or slots, by name."""
        now = self.clock.wall()
        return self.store.read(lambda conn: waiting.queue_states(conn, self.settings, now))

    def count_by_status(self, owner: str | None = None) -> dict[str, int]:
        """Return how many jobs are in each state that has any."""
        query = sa.select(t.jobs.c.status, sa.func.count()).group_by(t.jobs.c.status)
        if owner is not None:
            query = query.where(t.jobs.c.owner == owner)
        return self.store.read(lambda conn: {status: count for status, count in conn.execute(query)})

    def transitions(self, job_id: str, owner: str | None = None) -> Sequence[Transition]:
        """Return the audit trail of a job, oldest first; raises NotFound."""
        table = t.job_transitions
        query = sa.select(table).where(table.c.job_id == job_id).order_by(table.c.seq)
        return self._of(job_id, owner, query, rows.transition)

    def attempts(self, job_id: str, owner: str | None = None) -> Sequence[Attempt]:
        """Return the attempts at a job, oldest first; raises NotFound."""
        table = t.job_attempts
        query = sa.select(table).where(table.c.job_id == job_id).order_by(table.c.attempt)
        return self._of(job_id, owner, query, rows.attempt)

    def epochs(
        self, job_id: str, owner: str | None = None, *, with_superseded: bool = False
    ) -> Sequence[EpochRow]:
        """Return a job's epochs in order, at most one row each unless superseded ones are asked for too."""
        table = t.epoch_metrics
        query = sa.select(table).where(table.c.job_id == job_id).order_by(table.c.epoch, table.c.attempt)
        if not with_superseded:
            query = query.where(table.c.superseded == sa.false())
        return self._of(job_id, owner, query, rows.epoch)

    def artifacts(self, job_id: str, owner: str | None = None) -> Sequence[Artifact]:
        """Return a job's artifacts by name, each from the latest attempt that made it; raises NotFound."""
        table = t.artifacts
        query = sa.select(table).where(table.c.job_id == job_id).order_by(table.c.name, table.c.attempt)
        latest = {artifact.name: artifact for artifact in self._of(job_id, owner, query, rows.artifact)}
        return list(latest.values())

    def artifact(self, job_id: str, name: str, owner: str | None = None) -> Artifact:
        """Return one artifact; raises NotFound."""
        for artifact in self.artifacts(job_id, owner):
            if artifact.name == name:
                return artifact
        raise NotFound(f"no artifact {name[:200]!r}", code="ARTIFACT_NOT_FOUND")

    def logs(self, job_id: str, name: str, owner: str | None = None) -> dict[int, Artifact]:
        """Return what every attempt left under the name of a log, by attempt; raises NotFound."""
        table = t.artifacts
        query = sa.select(table).where(
            table.c.job_id == job_id, table.c.name == name, table.c.kind == LOG_KIND
        )
        return {artifact.attempt: artifact for artifact in self._of(job_id, owner, query, rows.artifact)}

    def _of(
        self, job_id: str, owner: str | None, query: sa.Select[Any], make: Callable[[RowMapping], Any]
    ) -> Sequence[Any]:
        def read(conn: Connection) -> Sequence[Any]:
            find_job(conn, job_id, owner)
            return [make(row) for row in conn.execute(query).mappings()]

        return self.store.read(read)


def _known(conn: Connection, owner: str, key: str, fingerprint: str) -> Job | None:
    table = t.idempotency_keys
    query = sa.select(table).where(table.c.owner == owner, table.c.key == key)
    known = conn.execute(query).mappings().one_or_none()
    if known is None:
        return None
    if known["fingerprint"] != fingerprint:
        raise Conflict("this idempotency key was used for another submission", code="IDEMPOTENCY_CONFLICT")
    try:
        return rows.job(find_job(conn, known["job_id"], owner))
    except NotFound:
        raise Conflict("the job of this idempotency key was deleted", code="IDEMPOTENCY_CONFLICT") from None


def _point(conn: Connection, owner: str, key: str, job_id: str) -> None:
    """Let a new key stand for a job that was there before it."""
    table = t.idempotency_keys
    mine = table.c.owner == owner, table.c.key == key
    conn.execute(sa.update(table).where(*mine).values(job_id=job_id))


def _identical(conn: Connection, owner: str, fingerprint: str, on_duplicate: OnDuplicate) -> Job | None:
    """Return the job to take in place of a new one, if there is one and that is wished; raises RunExists."""
    if on_duplicate is OnDuplicate.NEW:
        return None
    # Of two that ask at once, the second must see the first one's job.
    serialise(conn, f"run {owner} {fingerprint}")
    row = fingerprints.identical(conn, owner, fingerprint)
    if row is not None and on_duplicate is OnDuplicate.REFUSE:
        raise RunExists(row["id"], row["status"])
    return rows.job(row) if row is not None else None


def _referenced(conn: Connection, table: sa.Table, row_id: str, owner: str, noun: str) -> RowMapping:
    """Return the row a submission names, its state locked until the job is in the book."""
    query = sa.select(table).where(table.c.id == row_id, table.c.owner == owner)
    if "deleted_at" in table.c:
        query = query.where(table.c.deleted_at.is_(None))
    row = conn.execute(query.with_for_update(read=True)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"no {noun} {row_id[:60]!r}", code=f"{noun.upper()}_NOT_FOUND")
    return row


def _fingerprint(new: NewJob) -> str:
    return hashlib.sha256(json.dumps(asdict(new), sort_keys=True).encode()).hexdigest()
