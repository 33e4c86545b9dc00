"""A job's changes of state inside a transaction: the row, and its line in the audit trail, never one alone.

Functions of a connection, used by the books. Whoever calls them has locked the row or fenced it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from api.domain import tables as t
from api.domain.failures import Failure, FailureCode
from api.domain.records import JobStatus, Wish
from api.domain.rules import Next

Values = Mapping[str, Any]
MAX_REASON = 400


def record(
    conn: Connection,
    job_id: str,
    *,
    before: JobStatus | None,
    after: JobStatus,
    attempt: int,
    actor: str,
    reason: str,
    now: float,
) -> None:
    """Add a line to the audit trail."""
    conn.execute(
        sa.insert(t.job_transitions).values(
            job_id=job_id,
            from_status=before,
            to_status=after,
            attempt=attempt,
            actor=actor,
            reason=reason[:MAX_REASON],
            at=now,
        )
    )


def move(
    conn: Connection,
    row: RowMapping,
    after: JobStatus,
    *,
    actor: str,
    reason: str,
    now: float,
    values: Values | None = None,
) -> RowMapping:
    """Take a job from the state it was seen in to another, with its line in the trail; return the new row.

    Leaving `running` ends wish, worker and phase, and counts its time; a final state has the time it began.
    `values` may say otherwise: a stop that no trainer has carried out stands.
    """
    before = JobStatus(row["status"])
    changed: dict[str, Any] = {
        "status": after,
        "wish": None,
        "worker": None,
        "phase": None,
        "not_before": None,
    }
    if before is JobStatus.RUNNING:
        changed["ran_s"] = ran_s(conn, row, now)
    if after.is_final:
        changed["finished_at"] = now
    if after is JobStatus.SUCCEEDED:
        changed["stopped"] = Wish.STOP in (row["wish"], reason)
    statement = (
        sa.update(t.jobs)
        .where(t.jobs.c.id == row["id"], t.jobs.c.status == before, t.jobs.c.attempt == row["attempt"])
        .values(**{**changed, **(values or {})}, revision=t.jobs.c.revision + 1)
        .returning(t.jobs)
    )
    moved = conn.execute(statement).mappings().one()
    record(
        conn,
        row["id"],
        before=before,
        after=after,
        attempt=row["attempt"],
        actor=actor,
        reason=reason,
        now=now,
    )
    return moved


def ran_s(conn: Connection, row: RowMapping, now: float) -> float:
    """Return how many seconds a running job has run, over all its attempts."""
    attempts = t.job_attempts
    query = sa.select(attempts.c.started_at).where(
        attempts.c.job_id == row["id"], attempts.c.attempt == row["attempt"]
    )
    started_at: float = conn.execute(query).scalar_one()
    return float(row["ran_s"]) + max(0.0, now - started_at)


def is_over_time(conn: Connection, row: RowMapping, now: float) -> bool:
    """Tell whether a running job has run for as long as it may."""
    limit: int | None = row["max_runtime_s"]
    return limit is not None and ran_s(conn, row, now) >= limit


def count_failures(conn: Connection, job_id: str, code: FailureCode) -> int:
    """Return how many attempts at a job have ended with this failure."""
    attempts = t.job_attempts
    query = sa.select(sa.func.count()).where(attempts.c.job_id == job_id, attempts.c.code == code.value)
    return conn.execute(query).scalar_one()


def follow(
    conn: Connection,
    row: RowMapping,
    following: Next,
    *,
    actor: str,
    now: float,
    failure: Failure | None = None,
    values: Values | None = None,
) -> RowMapping:
    """Do what the rules say follows an attempt that ended without a result."""
    more: dict[str, Any] = {
        "failures": following.failures,
        "preemptions": following.preemptions,
        "wish": following.wish,
    }
    if following.status is JobStatus.QUEUED and following.pause_s > 0:
        more["not_before"] = now + following.pause_s
    if failure is not None and following.status in (JobStatus.FAILED, JobStatus.QUEUED):
        more["error"] = failure.as_json()
    if following.status is JobStatus.SUCCEEDED and row["pointer"]:
        more["best"] = row["pointer"].get("best") or row["best"]
    return move(
        conn,
        row,
        following.status,
        actor=actor,
        reason=following.reason,
        now=now,
        values={**more, **(values or {})},
    )


def end_attempt(
    conn: Connection,
    job_id: str,
    attempt: int,
    *,
    outcome: str,
    now: float,
    code: str | None = None,
    exit_code: int | None = None,
    last_event_id: str | None = None,
) -> None:
    """Write how an attempt ended into its row."""
    statement = (
        sa.update(t.job_attempts)
        .where(t.job_attempts.c.job_id == job_id, t.job_attempts.c.attempt == attempt)
        .values(outcome=outcome, code=code, exit_code=exit_code, last_event_id=last_event_id, finished_at=now)
    )
    conn.execute(statement)


def fail_waiting(conn: Connection, dataset_id: str, failure: Failure, *, actor: str, now: float) -> None:
    """Fail the jobs that wait, queued or paused, for a dataset that will never be ready."""
    waiting = (
        sa.select(t.jobs)
        .where(t.jobs.c.dataset_id == dataset_id, t.jobs.c.status.in_([JobStatus.QUEUED, JobStatus.PAUSED]))
        .with_for_update()
    )
    for row in conn.execute(waiting).mappings().all():
        move(
            conn,
            row,
            JobStatus.FAILED,
            actor=actor,
            reason=failure.code.value,
            now=now,
            values={"error": failure.as_json()},
        )
