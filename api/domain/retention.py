"""What may be deleted: files of jobs that ended long ago, folders of no job, blobs nobody names.

Decides from rows alone and deletes only rows; whoever removes the files asks here first. The journal of an
attempt is a file people may still want, so a job is cleared only once every journal is a stored artifact.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from api.domain import figures
from api.domain import tables as t
from api.domain.blobs import Blob
from api.domain.clock import SYSTEM_CLOCK, Clock
from api.domain.errors import Conflict
from api.domain.ids import is_id
from api.domain.records import Artifact, JobStatus
from api.domain.settings import DAY, Settings
from api.domain.store import Store

JOURNAL_NAME = "events.jsonl"
# The name of a worker's first folder, and of a blob before its row, may be ahead of the book for a while.
GRACE_S = DAY


@dataclass(frozen=True)
class ExpiredJob:
    """A finished job whose files are kept no longer; `unarchived` attempts have no stored journal."""

    id: str
    owner: str
    name: str
    status: JobStatus
    finished_at: float
    unarchived: tuple[int, ...]


class RetentionBook:
    """Asks and tells what of the past is kept."""

    def __init__(self, store: Store, settings: Settings, clock: Clock = SYSTEM_CLOCK) -> None:
        self.store = store
        self.settings = settings
        self.clock = clock

    def expired(self, limit: int = 100) -> list[ExpiredJob]:
        """Return jobs that ended before the days of retention and still have files, oldest first.

        Changes nothing: this is the dry run too. Empty where everything is kept.
        """
        cutoff = self._cutoff()
        if cutoff is None:
            return []
        query = (
            sa.select(t.jobs)
            .where(t.jobs.c.finished_at < cutoff, t.jobs.c.cleared_at.is_(None))
            .order_by(t.jobs.c.finished_at)
            .limit(limit)
        )

        def read(conn: Connection) -> list[ExpiredJob]:
            found = conn.execute(query).mappings().all()
            open_attempts = _unarchived(conn, [row["id"] for row in found])
            return [_expired(row, open_attempts.get(row["id"], [])) for row in found]

        return self.store.read(read)

    def ended_since(self, at: float) -> list[str]:
        """Return the ids of jobs that ended at this time or later and still have files."""
        query = sa.select(t.jobs.c.id).where(t.jobs.c.finished_at >= at, t.jobs.c.cleared_at.is_(None))
        return self.store.read(lambda conn: list(conn.execute(query).scalars()))

    def archive(self, job_id: str, attempt: int, artifacts: Sequence[Artifact]) -> bool:
        """Name stored files of an attempt that its worker could not store any more.

        Tells whether they were entered: not where the attempt runs, or the job is unknown, or for a name
        the attempt already has.
        """
        table = t.artifacts

        def write(conn: Connection) -> bool:
            ended = sa.select(t.job_attempts).where(
                t.job_attempts.c.job_id == job_id,
                t.job_attempts.c.attempt == attempt,
                t.job_attempts.c.outcome.is_not(None),
            )
            if conn.execute(ended.with_for_update()).one_or_none() is None:
                return False
            named = sa.select(table.c.name).where(table.c.job_id == job_id, table.c.attempt == attempt)
            known = set(conn.execute(named).scalars())
            new = [artifact for artifact in artifacts if artifact.name not in known]
            figures.put_artifacts(conn, job_id, attempt, new, now=self.clock.wall())
            return bool(new)

        return self.store.write(write)

    def clear(self, job_id: str, *, without_journal: Collection[int] = ()) -> bool:
        """Give up the files of a job that ended before the days of retention; `deletable` names it then.

        `without_journal` are attempts that never wrote one. Tells whether the job was cleared by this call;
        raises Conflict JOURNAL_NOT_ARCHIVED.
        """
        cutoff = self._cutoff()
        if cutoff is None:
            return False

        def write(conn: Connection) -> bool:
            left = set(_unarchived(conn, [job_id]).get(job_id, [])) - set(without_journal)
            if left:
                raise Conflict(f"attempts {sorted(left)} have no stored journal", code="JOURNAL_NOT_ARCHIVED")
            statement = (
                sa.update(t.jobs)
                .where(t.jobs.c.id == job_id, t.jobs.c.finished_at < cutoff, t.jobs.c.cleared_at.is_(None))
                .values(cleared_at=self.clock.wall())
                .returning(t.jobs.c.id)
            )
            return conn.execute(statement).one_or_none() is not None

        return self.store.write(write)

    def deletable(self, folder_names: Sequence[str]) -> list[str]:
        """Return which of these folders of jobs may be removed: of cleared jobs, and of jobs not in the book.

        A name that is no job's id is never returned.
        """
        ids = [name for name in folder_names if is_id(name, "job")]
        kept = sa.select(t.jobs.c.id).where(t.jobs.c.id.in_(ids), t.jobs.c.cleared_at.is_(None))
        found = self.store.read(lambda conn: set(conn.execute(kept).scalars()))
        return [job_id for job_id in ids if job_id not in found]

    def unreferenced_blobs(self, limit: int = 1000) -> list[Blob]:
        """Return blobs entered over a day ago that no artifact, no living dataset and no living weights name.

        Changes nothing. Images of datasets have no row of their own and are never among them.
        """
        query = _unreferenced(self.clock.wall()).limit(limit)
        return self.store.read(lambda conn: [Blob(row.sha256, row.size_bytes) for row in conn.execute(query)])

    def drop_blobs(self, digests: Sequence[str]) -> list[str]:
        """Forget those of these blobs that still nobody names; return them, for their files to be removed."""

        def write(conn: Connection) -> list[str]:
            still = _unreferenced(self.clock.wall()).with_only_columns(t.blobs.c.sha256)
            statement = (
                sa.delete(t.blobs)
                .where(t.blobs.c.sha256.in_(list(digests)), t.blobs.c.sha256.in_(still))
                .returning(t.blobs.c.sha256)
            )
            return list(conn.execute(statement).scalars())

        return self.store.write(write)

    def _cutoff(self) -> float | None:
        days = self.settings.retention_days
        return None if days is None else self.clock.wall() - days * DAY


def _expired(row: RowMapping, unarchived: Sequence[int]) -> ExpiredJob:
    status = JobStatus(row["status"])
    return ExpiredJob(row["id"], row["owner"], row["name"], status, row["finished_at"], tuple(unarchived))


def _unarchived(conn: Connection, job_ids: Sequence[str]) -> dict[str, list[int]]:
    """Return the attempts of these jobs whose journal is no artifact."""
    stored = (
        sa.exists()
        .where(
            t.artifacts.c.job_id == t.job_attempts.c.job_id,
            t.artifacts.c.attempt == t.job_attempts.c.attempt,
            t.artifacts.c.name == JOURNAL_NAME,
        )
        .correlate(t.job_attempts)
    )
    query = (
        sa.select(t.job_attempts.c.job_id, t.job_attempts.c.attempt)
        .where(t.job_attempts.c.job_id.in_(list(job_ids)), sa.not_(stored))
        .order_by(t.job_attempts.c.attempt)
    )
    found: dict[str, list[int]] = {}
    for job_id, attempt in conn.execute(query):
        found.setdefault(job_id, []).append(attempt)
    return found


def _unreferenced(now: float) -> sa.Select[tuple[str, int]]:
    blob = t.blobs.c.sha256
    names = (t.datasets.c.sha256, t.datasets.c.manifest_hash, t.datasets.c.report_sha256)
    alive = t.datasets.c.deleted_at.is_(None)
    by_dataset = sa.exists().where(alive, sa.or_(*(blob == name for name in names)))
    kept = (t.weights.c.sha256, t.weights.c.stored_sha256, t.weights.c.report_sha256)
    by_weights = sa.exists().where(t.weights.c.deleted_at.is_(None), sa.or_(*(blob == name for name in kept)))
    by_artifact = sa.exists().where(t.artifacts.c.sha256 == blob)
    return sa.select(blob, t.blobs.c.size_bytes).where(
        t.blobs.c.created_at < now - GRACE_S, sa.not_(by_dataset), sa.not_(by_weights), sa.not_(by_artifact)
    )
