"""The task book: work other than training (ingest, import of weights), claimed and fenced as jobs are.

A task has no audit trail and no pointer; what it decides is written about its subject in the transaction
that ends it. Does no file or network I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from api.domain import datasets, leasing, probes, rows, weights
from api.domain import tables as t
from api.domain.clock import SYSTEM_CLOCK, Clock
from api.domain.errors import NotFound
from api.domain.failures import Failure, FailureCode
from api.domain.leasing import Held
from api.domain.records import IngestResult, Task, TaskStatus, Wish
from api.domain.rules import NextTask, after_task_failure, task_retry_rules
from api.domain.settings import Settings
from api.domain.store import Store, insert_or_ignore
from api.domain.weights_records import WeighingResult

_PUT_ERROR = {
    datasets.KIND_INGEST: datasets.put_ingest_error,
    weights.KIND_WEIGHTS: weights.put_error,
    probes.KIND_PROBE: probes.put_error,
}


class TaskBook:
    """Tasks of all kinds."""

    def __init__(self, store: Store, settings: Settings, clock: Clock = SYSTEM_CLOCK) -> None:
        self.store = store
        self.settings = settings
        self.clock = clock
        self._rules = task_retry_rules(settings)

    def claim(self, queue: str, worker: str) -> Task | None:
        """Take the oldest due task of a queue as its next attempt; None where there is none."""

        def write(conn: Connection) -> Task | None:
            row = leasing.claim(conn, t.tasks, queue=queue, worker=worker, now=self.clock.wall())
            return rows.task(row) if row is not None else None

        return self.store.write(write)

    def heartbeat(self, task_id: str, attempt: int) -> Wish | None:
        """Renew the claim and return what is wished (cancel); raises Fenced, or StoreUnavailable (go on)."""
        return self.store.write(lambda conn: leasing.renew(conn, t.tasks, task_id, attempt))

    def finish_ingest(self, task_id: str, attempt: int, result: IngestResult) -> Task:
        """Write the verdict on a dataset and end its task, together; raises Fenced.

        The manifest and report blobs must be stored before, in this order: images, manifest, this row.
        """

        def write(conn: Connection) -> Task:
            row = leasing.fence(conn, t.tasks, task_id, attempt)
            assert row["kind"] == datasets.KIND_INGEST
            now = self.clock.wall()
            datasets.put_ingest_result(conn, row["subject_id"], result, now=now)
            return self._end(conn, row, NextTask(TaskStatus.SUCCEEDED, row["failures"], 0.0))

        return self.store.write(write)

    def finish_weights(self, task_id: str, attempt: int, result: WeighingResult) -> Task:
        """Write the verdict on weights and end their task, together; raises Fenced.

        The blobs of the file and of the report must be stored before.
        """

        def write(conn: Connection) -> Task:
            row = leasing.fence(conn, t.tasks, task_id, attempt)
            assert row["kind"] == weights.KIND_WEIGHTS
            weights.put_result(conn, row["subject_id"], result, now=self.clock.wall())
            return self._end(conn, row, NextTask(TaskStatus.SUCCEEDED, row["failures"], 0.0))

        return self.store.write(write)

    def finish_probe(self, task_id: str, attempt: int, result: Mapping[str, Any]) -> Task:
        """Write what was measured and end the task, together; raises Fenced."""

        def write(conn: Connection) -> Task:
            row = leasing.fence(conn, t.tasks, task_id, attempt, {"result": dict(result)})
            assert row["kind"] == probes.KIND_PROBE
            return self._end(conn, row, NextTask(TaskStatus.SUCCEEDED, row["failures"], 0.0))

        return self.store.write(write)

    def note_blob(self, task_id: str, attempt: int, sha256: str, size_bytes: int) -> None:
        """Enter a stored blob of this task (manifest, report) into the list of blobs; raises Fenced."""

        def write(conn: Connection) -> None:
            leasing.fence(conn, t.tasks, task_id, attempt)
            values = {"sha256": sha256, "size_bytes": size_bytes, "created_at": self.clock.wall()}
            insert_or_ignore(conn, t.blobs, values)

        self.store.write(write)

    def fail(self, task_id: str, attempt: int, failure: Failure) -> Task:
        """End an attempt that failed without a verdict: queued again, or SERVICE_ERROR. Raises Fenced."""

        def write(conn: Connection) -> Task:
            return self._fail(conn, leasing.fence(conn, t.tasks, task_id, attempt), failure)

        return self.store.write(write)

    def release(self, task_id: str, attempt: int) -> Task:
        """Give a task back because the worker drains, or end it as wished; costs nothing of its budget."""

        def write(conn: Connection) -> Task:
            row = leasing.fence(conn, t.tasks, task_id, attempt)
            after = TaskStatus.CANCELLED if row["wish"] else TaskStatus.QUEUED
            return self._end(conn, row, NextTask(after, row["failures"], 0.0), preempted=True)

        return self.store.write(write)

    def get(self, task_id: str) -> Task:
        """Return a task; raises NotFound."""
        query = sa.select(t.tasks).where(t.tasks.c.id == task_id)
        row = self.store.read(lambda conn: conn.execute(query).mappings().one_or_none())
        if row is None:
            raise NotFound(f"no task {task_id[:60]!r}")
        return rows.task(row)

    def for_subject(self, subject_id: str) -> list[Task]:
        """Return the tasks about one thing, oldest first."""
        query = sa.select(t.tasks).where(t.tasks.c.subject_id == subject_id).order_by(t.tasks.c.id)
        return self.store.read(lambda conn: [rows.task(row) for row in conn.execute(query).mappings()])

    def held(self) -> list[Held]:
        """Return every running claim, for the reaper to remember."""
        return self.store.read(lambda conn: leasing.held(conn, t.tasks))

    def expire(self, seen: Held) -> Task | None:
        """Take back a claim that did not move since it was seen; None where it did."""

        def write(conn: Connection) -> Task | None:
            row = leasing.seize(conn, t.tasks, seen)
            if row is None:
                return None
            failure = Failure(
                FailureCode.WORKER_LOST, f"the worker {row['worker']} stopped renewing its claim"
            )
            return self._fail(conn, row, failure)

        return self.store.write(write)

    def count_due(self) -> dict[str, int]:
        """Return how many tasks of each queue could be claimed now."""
        return self.store.read(lambda conn: leasing.count_due(conn, t.tasks, now=self.clock.wall()))

    def _fail(self, conn: Connection, row: RowMapping, failure: Failure) -> Task:
        wish = Wish(row["wish"]) if row["wish"] else None
        following = after_task_failure(
            failure, wish=wish, failures=row["failures"], rules=self._rules, key=row["id"]
        )
        if following.status is TaskStatus.FAILED:
            put_error = _PUT_ERROR[row["kind"]]
            put_error(conn, row["subject_id"], failure, now=self.clock.wall())
        return self._end(conn, row, following, failure=failure)

    def _end(
        self,
        conn: Connection,
        row: RowMapping,
        following: NextTask,
        *,
        failure: Failure | None = None,
        preempted: bool = False,
    ) -> Task:
        now = self.clock.wall()
        statement = (
            sa.update(t.tasks)
            .where(t.tasks.c.id == row["id"], t.tasks.c.status == TaskStatus.RUNNING)
            .values(
                status=following.status,
                failures=following.failures,
                preemptions=row["preemptions"] + int(preempted),
                wish=None,
                worker=None,
                not_before=now + following.pause_s if following.pause_s > 0 else None,
                error=failure.as_json() if failure is not None else None,
                finished_at=now if following.status.is_final else None,
                revision=t.tasks.c.revision + 1,
            )
            .returning(t.tasks)
        )
        return rows.task(conn.execute(statement).mappings().one())
