"""Which stored contents, and which folders, anything in the book still speaks of.

Asked by whoever frees disk space, on top of what `retention` decides: about files that have no row of their
own. Opens no file and changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from api.domain import tables as t
from api.domain.records import JobStatus, TaskStatus
from api.domain.store import Store

# SQLite bounds the values of one statement.
_AT_ONCE = 500


class ContentBook:
    """Questions about names of files and folders, all owners alike."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def unnamed(self, digests: Sequence[str]) -> list[str]:
        """Return which of these contents no row names: no blob, upload, artifact, living dataset or weights.

        The images of a dataset are named by its manifest alone, so they are among them.
        """

        def read(conn: Connection) -> list[str]:
            shown = _shown(conn)
            found = [sha256 for part in _parts(digests) for sha256 in _unnamed(conn, part)]
            return [sha256 for sha256 in found if sha256 not in shown]

        return self.store.read(read)

    def manifests(self) -> dict[str, str]:
        """Return the digests of the manifests of all datasets that are not deleted, each with one of them."""
        query = sa.select(t.datasets.c.manifest_hash, t.datasets.c.id).where(
            t.datasets.c.manifest_hash.is_not(None), t.datasets.c.deleted_at.is_(None)
        )
        return self.store.read(lambda conn: {digest: name for digest, name in conn.execute(query)})

    def finished(self, job_ids: Sequence[str], *, before: float) -> dict[str, str | None]:
        """Return those of these jobs that ended before this time, and what checkpoint each points to.

        The path is relative to the job's folder; None for a job without a checkpoint.
        """

        def read(conn: Connection) -> dict[str, str | None]:
            found: dict[str, str | None] = {}
            final = [status for status in JobStatus if status.is_final]
            for part in _parts(job_ids):
                query = sa.select(t.jobs.c.id, t.jobs.c.pointer).where(
                    t.jobs.c.id.in_(part), t.jobs.c.status.in_(final), t.jobs.c.finished_at < before
                )
                for job_id, pointer in conn.execute(query):
                    found[job_id] = pointer["path"] if pointer else None
            return found

        return self.store.read(read)

    def running_tasks(self) -> dict[str, int]:
        """Return the attempt of every task that runs."""
        query = sa.select(t.tasks.c.id, t.tasks.c.attempt).where(t.tasks.c.status == TaskStatus.RUNNING)
        return self.store.read(lambda conn: {task_id: attempt for task_id, attempt in conn.execute(query)})


def _parts(values: Sequence[str]) -> list[Sequence[str]]:
    return [values[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE)]


def _shown(conn: Connection) -> set[str]:
    """Return the digests of what living datasets have to be looked at."""
    query = sa.select(t.datasets.c.files).where(
        t.datasets.c.deleted_at.is_(None), t.datasets.c.files.is_not(None)
    )
    return {sha256 for files in conn.execute(query).scalars() for sha256 in files.values()}


def _unnamed(conn: Connection, digests: Sequence[str]) -> list[str]:
    alive = t.datasets.c.deleted_at.is_(None)
    queries = [
        sa.select(t.blobs.c.sha256).where(t.blobs.c.sha256.in_(digests)),
        sa.select(t.artifacts.c.sha256).where(t.artifacts.c.sha256.in_(digests)),
        sa.select(t.uploads.c.sha256).where(t.uploads.c.sha256.in_(digests)),
    ]
    for column in (t.datasets.c.sha256, t.datasets.c.manifest_hash, t.datasets.c.report_sha256):
        queries.append(sa.select(column).where(alive, column.in_(digests)))
    queries += [
        sa.select(column).where(t.weights.c.deleted_at.is_(None), column.in_(digests))
        for column in (t.weights.c.sha256, t.weights.c.stored_sha256, t.weights.c.report_sha256)
    ]
    named = {sha256 for query in queries for sha256 in conn.execute(query).scalars()}
    return [sha256 for sha256 in digests if sha256 not in named]
