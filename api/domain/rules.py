"""What follows when an attempt ends: pure functions of the wish, the budget and the cause.

The books write what these return; nothing here knows SQL or a clock.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from api.domain.failures import Failure
from api.domain.records import JobStatus, TaskStatus, Wish
from api.domain.settings import Settings

JITTER = 0.2
_RANK = {Wish.CANCEL: 0, Wish.STOP: 1, Wish.PAUSE: 2}


@dataclass(frozen=True)
class RetryRules:
    """How many failures are retried, and how long to wait: doubled each time, up to a bound."""

    retries: int
    backoff_s: float
    backoff_max_s: float

    def allows(self, failures: int) -> bool:
        """Tell whether the attempt after this many failures may still be made."""
        return failures <= self.retries

    def pause_s(self, failures: int, stretch: float = 1.0, *, key: str | None = None) -> float:
        """Return the wait before the attempt after this many failures (1 or more), never over the bound.

        With the id of whatever failed as `key` it is up to a fifth longer or shorter, always the same for the
        same id and count: what failed together does not come back together.
        """
        pause_s = min(self.backoff_max_s, stretch * self.backoff_s * float(2 ** min(failures - 1, 30)))
        return min(self.backoff_max_s, pause_s * (1.0 if key is None else _jitter(key, failures)))


def _jitter(key: str, failures: int) -> float:
    """Return a factor from 1 - JITTER to 1 + JITTER, evenly spread over ids."""
    digest = hashlib.sha256(f"{key}:{failures}".encode()).digest()
    return 1.0 + JITTER * (int.from_bytes(digest[:4], "big") / 2**31 - 1.0)


def job_retry_rules(settings: Settings) -> RetryRules:
    """Return the rules for jobs."""
    return RetryRules(settings.job_retries, settings.retry_backoff_s, settings.retry_backoff_max_s)


def task_retry_rules(settings: Settings) -> RetryRules:
    """Return the rules for tasks."""
    return RetryRules(settings.task_retries, settings.retry_backoff_s, settings.retry_backoff_max_s)


@dataclass(frozen=True)
class Next:
    """The state that follows an attempt, and what the row remembers of how it came to it.

    `wish` is what is still wished of a job that is queued.
    """

    status: JobStatus
    failures: int
    preemptions: int
    pause_s: float
    reason: str
    wish: Wish | None = None


def outranked_by(wish: Wish) -> list[Wish]:
    """Return the wishes that a new one replaces."""
    return [other for other in Wish if _RANK[other] > _RANK[wish]]


def granted(wish: Wish, *, has_best: bool, has_weights: bool) -> JobStatus:
    """Return the state a wish leads to once no attempt runs: stop keeps the best if there is one.

    A best whose weights are not stored yet lies in a checkpoint, which only a trainer reads: the job is
    queued, and the stop stands until the next attempt has carried it out.
    """
    if wish is Wish.PAUSE:
        return JobStatus.PAUSED
    if wish is Wish.STOP and has_best:
        return JobStatus.SUCCEEDED if has_weights else JobStatus.QUEUED
    return JobStatus.CANCELLED


def after_failure(
    failure: Failure,
    *,
    wish: Wish | None,
    has_best: bool,
    has_weights: bool,
    failures: int,
    preemptions: int,
    rules: RetryRules,
    of_cause: int = 0,
    key: str | None = None,
) -> Next:
    """Return what follows a failed attempt; `of_cause` counts the earlier ones that failed for this cause.

    `key` is the job's id, which spreads the waits of jobs that failed together.

    A verdict (a failure that is not retried) stands whatever was wished, as a finish does. Otherwise the wish
    is granted, and without one, or with a stop that needs another attempt, the job is queued again until its
    budget, or that of the cause, is spent.
    """
    count = failures + 1
    code, policy = failure.code.value, failure.policy
    spent = policy.retries is not None and of_cause >= policy.retries
    if not failure.retried:
        return Next(JobStatus.FAILED, count, preemptions, 0.0, code)
    if wish is not None:
        status = granted(wish, has_best=has_best, has_weights=has_weights)
        if status is not JobStatus.QUEUED:
            return Next(status, count, preemptions, 0.0, f"{wish.value} after {code}")
    if rules.allows(count) and not spent:
        pause_s = rules.pause_s(count, policy.backoff, key=key)
        return Next(JobStatus.QUEUED, count, preemptions, pause_s, f"retry after {code}", wish)
    return Next(JobStatus.FAILED, count, preemptions, 0.0, f"{code}, no retries left")


def after_release(
    *, wish: Wish | None, has_best: bool, has_weights: bool, failures: int, preemptions: int, drained: bool
) -> Next:
    """Return what follows an attempt that ended politely: the wish is granted, else the job is queued again.

    Being drained costs nothing of the budget, and neither does a wish that was taken back meanwhile.
    """
    count = preemptions + int(drained)
    if wish is not None:
        status = granted(wish, has_best=has_best, has_weights=has_weights)
        kept = wish if status is JobStatus.QUEUED else None
        return Next(status, failures, count, 0.0, wish.value, kept)
    return Next(JobStatus.QUEUED, failures, count, 0.0, "drained" if drained else "released")


@dataclass(frozen=True)
class NextTask:
    """The state that follows an attempt at a task."""

    status: TaskStatus
    failures: int
    pause_s: float


def after_task_failure(
    failure: Failure, *, wish: Wish | None, failures: int, rules: RetryRules, key: str | None = None
) -> NextTask:
    """Return what follows a failed attempt at a task; a wish of any kind cancels it.

    `key` is the task's id, which spreads the waits of tasks that failed together.
    """
    count = failures + 1
    if wish is not None:
        return NextTask(TaskStatus.CANCELLED, count, 0.0)
    if failure.retried and rules.allows(count):
        return NextTask(TaskStatus.QUEUED, count, rules.pause_s(count, failure.policy.backoff, key=key))
    return NextTask(TaskStatus.FAILED, count, 0.0)
