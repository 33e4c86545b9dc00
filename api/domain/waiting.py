"""What a queued job waits for, how many are before it, and when it may start; the same rules choose claims.

Functions of a connection, used by the books: each answers for any number of jobs with a fixed number of
queries. The estimate is for people and decides nothing.
"""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from api.domain import leasing
from api.domain import tables as t
from api.domain.records import DatasetStatus, Job, JobStatus, QueueState, Waiting, WaitingReason
from api.domain.settings import Settings

WAITING_FOR_DATASET = WaitingReason.DATASET.value
_SEEN_BEATS = 4
_RECENT = 50
# What is farther back than this has no estimate: nothing of it would be true.
_FORESEEN = 1000


def eligible(settings: Settings) -> list[sa.ColumnElement[bool]]:
    """Return the conditions, besides being due, under which a queued job can be claimed."""
    ready = (
        sa.exists()
        .where(t.datasets.c.id == t.jobs.c.dataset_id, t.datasets.c.status == DatasetStatus.READY)
        .correlate(t.jobs)
    )
    # A worker that only pretends never takes a real job, and no real one a simulated.
    same_kind = t.jobs.c.simulated == (sa.true() if settings.simulate else sa.false())
    conditions: list[sa.ColumnElement[bool]] = [ready, same_kind]
    if settings.max_running_per_owner is not None:
        conditions.append(t.jobs.c.owner.not_in(_full_owners(settings.max_running_per_owner)))
    return conditions


def _full_owners(limit: int) -> sa.Select[Any]:
    """Select the owners that have as many running jobs as they may."""
    other = t.jobs.alias("other")
    running = sa.select(other.c.owner).where(leasing.has_status(other, JobStatus.RUNNING))
    return running.group_by(other.c.owner).having(sa.func.count() >= limit)


@dataclass
class _Queue:
    """What is known of a queue now; elapsed and median in seconds of running."""

    due: int = 0
    slots: int = 0
    idle: int = 0
    elapsed: list[float] = field(default_factory=list)
    median_s: float | None = None

    def start_after(self, position: int) -> float | None:
        """Return in how many seconds the job at this position (from 1) may start; None if unknown."""
        if position > _FORESEEN or not self.slots:
            return None
        if position <= self.idle:
            return 0.0
        if self.median_s is None:
            return None
        free = [max(0.0, self.median_s - elapsed) for elapsed in self.elapsed]
        free += [0.0] * max(0, self.slots - len(free))
        heapq.heapify(free)
        for _ in range(position - 1):
            heapq.heapreplace(free, free[0] + self.median_s)
        return free[0]


def look(conn: Connection, jobs: Sequence[Job], settings: Settings, now: float) -> dict[str, Waiting]:
    """Return what each queued one of these jobs waits for, by id."""
    queued = [job for job in jobs if job.status is JobStatus.QUEUED]
    if not queued:
        return {}
    queues = _queues(conn, {job.queue for job in queued}, settings, now)
    positions = _positions(conn, queued, settings, now)
    full: set[str] = set()
    if settings.max_running_per_owner is not None:
        full = set(conn.execute(_full_owners(settings.max_running_per_owner)).scalars())
    return {job.id: _explain(job, queues[job.queue], positions.get(job.id), full, now) for job in queued}


def _explain(job: Job, queue: _Queue, position: int | None, full: set[str], now: float) -> Waiting:
    if job.phase == WAITING_FOR_DATASET:
        return Waiting(WaitingReason.DATASET)
    if job.not_before is not None and job.not_before > now:
        return Waiting(WaitingReason.RETRY, starts_at=job.not_before)
    if job.owner in full:
        return Waiting(WaitingReason.OWNER_LIMIT)
    if not queue.slots:
        return Waiting(WaitingReason.NO_WORKER, position)
    after = queue.start_after(position) if position is not None else None
    return Waiting(WaitingReason.WORKER, position, now + after if after is not None else None)


def queue_states(conn: Connection, settings: Settings, now: float) -> list[QueueState]:
    """Return every queue that has work or slots, by name."""
    busy = sa.select(t.jobs.c.queue).where(t.jobs.c.status.in_([JobStatus.QUEUED, JobStatus.RUNNING]))
    names = set(conn.execute(busy.distinct()).scalars()) | set(_slots(conn, settings, now))
    queues = _queues(conn, names, settings, now)
    return [
        QueueState(name, queue.due, len(queue.elapsed), queue.slots, queue.idle, queue.median_s)
        for name, queue in sorted(queues.items())
    ]


def _positions(conn: Connection, jobs: Sequence[Job], settings: Settings, now: float) -> dict[str, int]:
    """Number what can be claimed now in the order of claims, from 1 in each queue."""
    place = sa.func.row_number().over(
        partition_by=t.jobs.c.queue, order_by=(t.jobs.c.priority.desc(), t.jobs.c.id)
    )
    numbered = (
        sa.select(t.jobs.c.id, place.label("place"))
        .where(
            t.jobs.c.queue.in_({job.queue for job in jobs}),
            *leasing.due(t.jobs, now),
            *eligible(settings),
        )
        .subquery()
    )
    query = sa.select(numbered.c.id, numbered.c.place).where(numbered.c.id.in_([job.id for job in jobs]))
    return {job_id: place for job_id, place in conn.execute(query)}


def _queues(conn: Connection, names: Iterable[str], settings: Settings, now: float) -> dict[str, _Queue]:
    queues = {name: _Queue() for name in names}
    for name, states in _slots(conn, settings, now).items():
        if name in queues:
            queues[name].slots = len(states)
            queues[name].idle = states.count("idle")
    began = sa.and_(t.job_attempts.c.job_id == t.jobs.c.id, t.job_attempts.c.attempt == t.jobs.c.attempt)
    running = (
        sa.select(t.jobs.c.queue, t.jobs.c.ran_s, t.job_attempts.c.started_at)
        .join(t.job_attempts, began)
        .where(leasing.has_status(t.jobs, JobStatus.RUNNING), t.jobs.c.queue.in_(list(queues)))
    )
    for name, ran_s, started_at in conn.execute(running):
        queues[name].elapsed.append(ran_s + max(0.0, now - started_at))
    for name, count in leasing.count_due(conn, t.jobs, now=now, eligible=eligible(settings)).items():
        if name in queues:
            queues[name].due = count
    for name, queue in queues.items():
        recent = _recent_runs(conn, name)
        queue.median_s = statistics.median(recent) if recent else None
    return queues


def _recent_runs(conn: Connection, queue: str) -> list[float]:
    """Return how long the latest jobs of a queue ran, of those that succeeded."""
    query = (
        sa.select(t.jobs.c.status, t.jobs.c.ran_s)
        .where(t.jobs.c.queue == queue, t.jobs.c.finished_at.is_not(None))
        .order_by(t.jobs.c.finished_at.desc())
        .limit(_RECENT)
    )
    # Chosen here, not in SQL: a search for ones that succeeded might read the whole past.
    succeeded = JobStatus.SUCCEEDED
    return [ran_s for status, ran_s in conn.execute(query) if status == succeeded and ran_s > 0]


def _slots(conn: Connection, settings: Settings, now: float) -> Mapping[str, list[str]]:
    """Return the states of the slots that live and take work, by queue."""
    patience_s = max(_SEEN_BEATS * settings.heartbeat_s, settings.lease_s)
    query = sa.select(t.workers.c.queue, t.workers.c.state).where(
        t.workers.c.seen_at > now - patience_s, t.workers.c.state.in_(["idle", "busy"])
    )
    found: dict[str, list[str]] = {}
    for queue, state in conn.execute(query):
        found.setdefault(queue, []).append(state)
    return found
