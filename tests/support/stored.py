"""All that is stored of a job, so that a test can see that nothing was added."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.chaos.sim_stack import SimStack

_TABLES = ("job_attempts", "job_transitions", "epoch_metrics", "artifacts")


@dataclass(frozen=True)
class Stored:
    """The rows of a job's tables, the ids of its stream, and the ids and types a new client is told."""

    job: tuple[Any, ...]
    rows: dict[str, list[tuple[Any, ...]]]
    stream: list[str]

    def of_attempt(self, attempt: int) -> dict[str, list[Any]]:
        """Return what an attempt has stored, where it is named: epochs, artifacts, events."""
        return {
            "epoch_metrics": [row for row in self.rows["epoch_metrics"] if row[1] == attempt],
            "artifacts": [row for row in self.rows["artifacts"] if row[1] == attempt],
            "stream": [one for one in self.stream if one.startswith(f"{attempt}-")],
        }


def stored(stack: SimStack, job_id: str) -> Stored:
    """Return all that is stored of a job now; the lease's counter and the revision are left out."""
    columns = (
        "status, attempt, failures, preemptions, wish, pointer, progress, best, metrics, error, finished_at"
    )
    ((*job,),) = stack.query(f"SELECT {columns}, last_event_id FROM jobs WHERE id = :id", id=job_id)
    rows = {
        "job_attempts": stack.query(
            "SELECT * FROM job_attempts WHERE job_id = :id ORDER BY attempt", id=job_id
        ),
        "job_transitions": stack.query(
            "SELECT * FROM job_transitions WHERE job_id = :id ORDER BY seq", id=job_id
        ),
        "epoch_metrics": stack.query(
            "SELECT job_id, attempt, epoch, event_id, recorded_at FROM epoch_metrics"
            " WHERE job_id = :id ORDER BY attempt, epoch",
            id=job_id,
        ),
        "artifacts": stack.query(
            "SELECT job_id, attempt, name, sha256, created_at FROM artifacts"
            " WHERE job_id = :id ORDER BY attempt, name",
            id=job_id,
        ),
    }
    assert set(rows) == set(_TABLES)
    with stack.redis() as server:
        entries = server.xrange(f"trainshed:events:{job_id}")
    return Stored(tuple(job), rows, [number.decode() for number, _ in entries])
