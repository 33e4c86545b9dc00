"""When two jobs are the same run: equal data, model, configuration, starting weights and program.

A fingerprint is told with the job and can be asked for, so that a result that is there already need not be
trained again. It is no idempotency key: that one is about submissions. Functions of a connection.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from api.domain import tables as t
from api.domain.records import JobStatus, Wish
from api.domain.versions import program_version


class OnDuplicate(StrEnum):
    """What becomes of a submission of which an identical run exists."""

    NEW = "new"
    REUSE = "reuse"
    REFUSE = "refuse"


def fingerprint(
    *, dataset_hash: str, architecture_hash: str, config_hash: str, weights_sha256: str | None, version: str
) -> str:
    """Return the SHA-256 (hex) of what determines a result; each part is a digest but for the version."""
    parts = {
        "dataset": dataset_hash,
        "architecture": architecture_hash,
        "config": config_hash,
        "weights": weights_sha256,
        "version": version,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def of_rows(
    dataset: Mapping[Any, Any],
    architecture: Mapping[Any, Any],
    *,
    config_hash: str,
    weights_sha256: str | None,
) -> str:
    """Return the fingerprint of a run on these rows; until its ingest ends, a dataset is its archive."""
    return fingerprint(
        dataset_hash=dataset["manifest_hash"] or f"archive:{dataset['sha256']}",
        architecture_hash=architecture["hash"],
        config_hash=config_hash,
        weights_sha256=weights_sha256,
        version=program_version(),
    )


def renew(conn: Connection, dataset_id: str) -> None:
    """Let the unfinished jobs of a dataset stand for its content, now that its ingest has ended."""
    dataset = conn.execute(sa.select(t.datasets).where(t.datasets.c.id == dataset_id)).mappings().one()
    architecture = t.architectures
    query = (
        sa.select(t.jobs.c.id, t.jobs.c.config_hash, t.jobs.c.weights_sha256, architecture.c.hash)
        .join(architecture, architecture.c.id == t.jobs.c.architecture_id)
        .where(t.jobs.c.dataset_id == dataset_id, t.jobs.c.finished_at.is_(None))
    )
    for row in conn.execute(query).mappings().all():
        found = of_rows(dataset, row, config_hash=row["config_hash"], weights_sha256=row["weights_sha256"])
        conn.execute(sa.update(t.jobs).where(t.jobs.c.id == row["id"]).values(fingerprint=found))


def identical(conn: Connection, owner: str, wanted: str) -> RowMapping | None:
    """Return the owner's job that is or will be the same run: one with a result before one without.

    One that failed, was cancelled or stopped is none, and neither is one that is about to be.
    """
    jobs = t.jobs
    alive = [JobStatus.SUCCEEDED, JobStatus.RUNNING, JobStatus.QUEUED, JobStatus.PAUSED]
    lasting = sa.or_(jobs.c.wish.is_(None), jobs.c.wish == Wish.PAUSE)
    query = (
        sa.select(jobs)
        .where(jobs.c.fingerprint == wanted, jobs.c.owner == owner, jobs.c.status.in_(alive))
        .where(jobs.c.stopped == sa.false(), lasting)
        .order_by(sa.case((jobs.c.status == JobStatus.SUCCEEDED, 0), else_=1), jobs.c.id.desc())
        .limit(1)
    )
    return conn.execute(query).mappings().one_or_none()
