"""How a job reads in a terminal: its line, what it waits for, its attempts, how it ended."""

from __future__ import annotations

import time
from collections.abc import Iterable

from api.cli.session import describe_problem, err, out
from api.client import Attempt, Job

_WAITS = {
    "no_worker": "there is no worker for its queue; it waits until one starts",
    "waiting_for_worker": "it waits for a worker that has time",
    "waiting_for_dataset": "it waits until its dataset has been checked",
    "waiting_to_retry": "an attempt failed; it waits a while before the next",
    "owner_limit": "as many jobs of its owner run as may; it waits until one has ended",
}
_WISHES = {
    "cancel": "its worker is told to drop it",
    "stop": "its worker is told to end it with the best so far",
    "pause": "its worker is told to write a checkpoint and let go of it",
}
_TO_BE_STOPPED = "to be ended: the next worker delivers the best so far; `activate` takes that back"


def row(job: Job) -> str:
    """Return the line of a job in a list."""
    progress = job.progress or {}
    epoch, epochs = progress.get("epoch"), progress.get("epochs")
    at = f"epoch {int(epoch) + 1}/{epochs}" if isinstance(epoch, int) and epochs else ""
    simulated = "SIMULATED" if job.simulated else ""
    return "  ".join(part for part in (job.id, job.status, job.name or "", at, simulated) if part)


def duration(seconds: float) -> str:
    """Return a time in words: `12 s`, `3 min 20 s`, `1 h 02 min`."""
    whole = max(0, round(seconds))
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def waiting_line(job: Job, now: float) -> str | None:
    """Return why a job does not run yet, its place and when it may start; None if it waits for nothing."""
    if not job.waiting_reason:
        return None
    parts = [_WAITS.get(job.waiting_reason, job.waiting_reason)]
    if job.queue_position is not None:
        parts.append(f"number {job.queue_position} of {job.queue or 'its queue'}")
    if job.estimated_start_at is not None:
        left_s = job.estimated_start_at - now
        parts.append(f"may start in about {duration(left_s)}" if left_s >= 1 else "may start any moment")
    return "; ".join(parts)


def print_state(job: Job) -> None:
    """Print a job's line, what it waits for, and what was wished of it."""
    out.print(row(job), markup=False)
    facts = [
        f"priority {job.priority}" if job.priority else "",
        f"rerun of {job.parent}" if job.parent else "",
    ]
    for line in (waiting_line(job, time.time()), wish_line(job), ", ".join(filter(None, facts))):
        if line:
            out.print(f"  {line}", markup=False)


def wish_line(job: Job) -> str | None:
    """Return what is to be done with a job and is not done yet; None if nothing is."""
    if not job.wish:
        return None
    if (job.status, job.wish) == ("queued", "stop"):
        return _TO_BE_STOPPED
    return _WISHES.get(job.wish, job.wish)


def print_attempts(attempts: Iterable[Attempt]) -> None:
    """Print a line an attempt."""
    for attempt in attempts:
        out.print(f"  {attempt_line(attempt, time.time())}", markup=False)


def attempt_line(attempt: Attempt, now: float) -> str:
    """Return what became of an attempt, where and how long it ran."""
    parts = [f"attempt {attempt.attempt}", attempt.outcome or "running"]
    if attempt.started_at is not None:
        parts.append(duration((attempt.finished_at or now) - attempt.started_at))
    parts.append(f"on {attempt.worker}" if attempt.worker else "")
    parts.append(attempt.code or "")
    parts.append(f"exit {attempt.exit_code}" if attempt.exit_code else "")
    return "  ".join(part for part in parts if part)


def print_result(job: Job) -> None:
    """Print how a job stands or ended: its best figures, and its error with a hint."""
    best = job.best or {}
    figures = "  ".join(
        f"{title} {best[key]:.3f}"
        for key, title in (("map50", "mAP50"), ("map50_95", "mAP50-95"))
        if isinstance(best.get(key), int | float)
    )
    out.print(f"{job.id}  {job.status}  {figures}".rstrip(), markup=False)
    if job.error:
        err.print(f"  {job.error.get('code')}: {describe_problem(job.error)}", markup=False)
        if job.error.get("hint"):
            err.print(f"  hint: {job.error['hint']}", markup=False)
