"""The worker's half of the job book: claim, renew, report, end. Every write begins with the fence.

A transaction of this file changes nothing unless the job is running as the caller's attempt; otherwise it
raises Fenced and the caller kills its child. Does no file or network I/O: artifacts are already stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from api.domain import changes, figures, leasing, rows
from api.domain import tables as t
from api.domain.clock import SYSTEM_CLOCK, Clock
from api.domain.failures import Failure, FailureCode
from api.domain.leasing import Held
from api.domain.records import Artifact, Claim, EpochRow, Job, JobStatus, Pointer, Wish
from api.domain.rules import after_failure, after_release, job_retry_rules
from api.domain.settings import Settings
from api.domain.store import Store, serialise
from api.domain.waiting import eligible


class RunBook:
    """What a worker may do with jobs, and the reaper with those of a worker that is gone."""

    def __init__(self, store: Store, settings: Settings, clock: Clock = SYSTEM_CLOCK) -> None:
        self.store = store
        self.settings = settings
        self.clock = clock
        self._rules = job_retry_rules(settings)

    def claim(self, queue: str, worker: str, *, host: str = "", gpus: Sequence[str] = ()) -> Claim | None:
        """Take the next job of a queue as its next attempt; None where nothing can be run.

        Highest priority first, then the oldest. A job waits while its dataset is being ingested, while its
        pause after a failure lasts, and while its owner has as many running jobs as allowed. The claim's job
        has the wish it was queued with, a stop, if there was one.
        """
        return self.store.write(lambda conn: self._claim(conn, queue, worker, host, gpus))

    def _claim(
        self, conn: Connection, queue: str, worker: str, host: str, gpus: Sequence[str]
    ) -> Claim | None:
        now = self.clock.wall()
        if self.settings.max_running_per_owner is not None:
            # Whoever counts an owner's running jobs must not count while another claims one.
            serialise(conn, "claims")
        row = leasing.claim(
            conn,
            t.jobs,
            queue=queue,
            worker=worker,
            now=now,
            order=("-priority", "id"),
            eligible=eligible(self.settings),
            values={"phase": "preparing", "error": None},
        )
        if row is None:
            return None
        row = figures.start_from_pointer(conn, row, row["pointer"])
        changes.record(
            conn,
            row["id"],
            before=JobStatus.QUEUED,
            after=JobStatus.RUNNING,
            attempt=row["attempt"],
            actor=f"worker:{worker}",
            reason="claimed",
            now=now,
        )
        opened = {"worker": worker, "host": host, "gpus": list(gpus), "started_at": now}
        conn.execute(
            sa.insert(t.job_attempts).values(
                job_id=row["id"], attempt=row["attempt"], resumed_from=row["pointer"], **opened
            )
        )
        dataset = conn.execute(sa.select(t.datasets).where(t.datasets.c.id == row["dataset_id"]))
        architecture = conn.execute(
            sa.select(t.architectures).where(t.architectures.c.id == row["architecture_id"])
        )
        return Claim(
            rows.job(row),
            rows.dataset(dataset.mappings().one()),
            rows.architecture(architecture.mappings().one()),
        )

    def heartbeat(self, job_id: str, attempt: int) -> Wish | None:
        """Renew the claim and return what is wished; raises Fenced, or StoreUnavailable (keep training)."""
        return self.store.write(lambda conn: leasing.renew(conn, t.jobs, job_id, attempt))

    def record_progress(
        self,
        job_id: str,
        attempt: int,
        progress: Mapping[str, Any] | None = None,
        *,
        phase: str | None = None,
        last_event_id: str | None = None,
    ) -> Wish | None:
        """Show how far the run is, and renew the claim; None leaves a figure as it is. Raises Fenced."""
        given = {"progress": progress, "phase": phase, "last_event_id": last_event_id}
        values = {name: value for name, value in given.items() if value is not None}
        return self.store.write(lambda conn: leasing.renew(conn, t.jobs, job_id, attempt, values))

    def record_epochs(self, job_id: str, attempt: int, epochs: Sequence[EpochRow]) -> None:
        """Write finished epochs; sending them again changes nothing. Raises Fenced."""

        def write(conn: Connection) -> None:
            row = leasing.fence(conn, t.jobs, job_id, attempt)
            figures.put_epochs(conn, row, epochs, now=self.clock.wall())

        self.store.write(write)

    def move_pointer(
        self, job_id: str, attempt: int, pointer: Pointer, epochs: Sequence[EpochRow] = ()
    ) -> None:
        """Go on from a newer checkpoint after a crash, and write the epochs up to it. Raises Fenced."""

        def write(conn: Connection) -> None:
            values: dict[str, Any] = {"pointer": pointer.as_json()}
            if pointer.best is not None:
                values["best"] = dict(pointer.best)
            row = leasing.fence(conn, t.jobs, job_id, attempt, values)
            figures.put_epochs(conn, row, epochs, now=self.clock.wall())

        self.store.write(write)

    def drop_pointer(self, job_id: str, attempt: int) -> None:
        """Forget a checkpoint that cannot be read: the run begins anew. Raises Fenced."""

        def write(conn: Connection) -> None:
            row = leasing.fence(conn, t.jobs, job_id, attempt, {"pointer": None})
            figures.start_from_pointer(conn, row, None)

        self.store.write(write)

    def add_artifacts(self, job_id: str, attempt: int, artifacts: Sequence[Artifact]) -> None:
        """Name files of this attempt, whose bytes are stored already; a name given again is replaced."""

        def write(conn: Connection) -> None:
            leasing.fence(conn, t.jobs, job_id, attempt)
            figures.put_artifacts(conn, job_id, attempt, artifacts, now=self.clock.wall())

        self.store.write(write)

    def finish(
        self,
        job_id: str,
        attempt: int,
        *,
        best: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
        epochs: Sequence[EpochRow] = (),
        artifacts: Sequence[Artifact] = (),
        last_event_id: str | None = None,
        exit_code: int | None = 0,
        reason: str = "finished",
    ) -> Job:
        """End a run well, whatever was wished meanwhile; all it left is written in the same transaction."""

        def write(conn: Connection) -> Job:
            row = leasing.fence(conn, t.jobs, job_id, attempt)
            row = figures.put_epochs(conn, row, epochs, now=self.clock.wall())
            figures.put_artifacts(conn, job_id, attempt, artifacts, now=self.clock.wall())
            values: dict[str, Any] = {
                "best": dict(best) if best is not None else row["best"],
                "metrics": dict(metrics) if metrics is not None else row["metrics"],
                "last_event_id": last_event_id or row["last_event_id"],
                "error": None,
            }
            return self._leave(
                conn,
                row,
                JobStatus.SUCCEEDED,
                reason,
                values,
                last_event_id=last_event_id,
                exit_code=exit_code,
            )

        return self.store.write(write)

    def fail(
        self,
        job_id: str,
        attempt: int,
        failure: Failure,
        *,
        artifacts: Sequence[Artifact] = (),
        last_event_id: str | None = None,
        exit_code: int | None = None,
    ) -> Job:
        """End an attempt that failed: queued again, as wished, or failed for good. Raises Fenced."""

        def write(conn: Connection) -> Job:
            row = leasing.fence(conn, t.jobs, job_id, attempt, _event_id(last_event_id))
            figures.put_artifacts(conn, job_id, attempt, artifacts, now=self.clock.wall())
            return self._after_failure(
                conn, row, failure, actor=_actor(row), last_event_id=last_event_id, exit_code=exit_code
            )

        return self.store.write(write)

    def release(
        self,
        job_id: str,
        attempt: int,
        *,
        drained: bool = False,
        artifacts: Sequence[Artifact] = (),
        last_event_id: str | None = None,
        exit_code: int | None = None,
    ) -> Job:
        """End an attempt that stopped as it was told: as wished, or queued again. Raises Fenced.

        `drained` says that the worker, not the owner, wanted it; that is counted apart from failures.
        """

        def write(conn: Connection) -> Job:
            row = leasing.fence(conn, t.jobs, job_id, attempt, _event_id(last_event_id))
            figures.put_artifacts(conn, job_id, attempt, artifacts, now=self.clock.wall())
            now = self.clock.wall()
            following = after_release(
                wish=_wish(row),
                has_best=figures.has_best(row),
                has_weights=figures.has_weights(conn, row),
                failures=row["failures"],
                preemptions=row["preemptions"],
                drained=drained,
            )
            moved = changes.follow(conn, row, following, actor=_actor(row), now=now)
            outcome = "released" if following.status is JobStatus.QUEUED else following.status.value
            changes.end_attempt(
                conn,
                job_id,
                attempt,
                outcome=outcome,
                now=now,
                exit_code=exit_code,
                last_event_id=last_event_id,
            )
            return rows.job(moved)

        return self.store.write(write)

    def held(self) -> list[Held]:
        """Return every running claim, for the reaper to remember."""
        return self.store.read(lambda conn: leasing.held(conn, t.jobs))

    def expire(self, seen: Held) -> Job | None:
        """Take back a claim that did not move since it was seen; None where it did."""

        def write(conn: Connection) -> Job | None:
            row = leasing.seize(conn, t.jobs, seen)
            if row is None:
                return None
            failure = Failure(
                FailureCode.WORKER_LOST, f"the worker {row['worker']} stopped renewing its claim"
            )
            return self._after_failure(conn, row, failure, actor="reaper", outcome="lost")

        return self.store.write(write)

    def count_due(self) -> dict[str, int]:
        """Return how many jobs of each queue could be claimed now."""
        return self.store.read(
            lambda conn: leasing.count_due(
                conn, t.jobs, now=self.clock.wall(), eligible=eligible(self.settings)
            )
        )

    def _after_failure(
        self,
        conn: Connection,
        row: RowMapping,
        failure: Failure,
        *,
        actor: str,
        outcome: str = "failed",
        last_event_id: str | None = None,
        exit_code: int | None = None,
    ) -> Job:
        now = self.clock.wall()
        following = after_failure(
            failure,
            wish=_wish(row),
            has_best=figures.has_best(row),
            has_weights=figures.has_weights(conn, row),
            failures=row["failures"],
            preemptions=row["preemptions"],
            rules=self._rules,
            of_cause=changes.count_failures(conn, row["id"], failure.code),
            key=row["id"],
        )
        ends_soon = following.wish is Wish.STOP
        if following.status is JobStatus.QUEUED and not ends_soon and changes.is_over_time(conn, row, now):
            failure = _over_time(row, failure)
            following = replace(following, status=JobStatus.FAILED, pause_s=0.0, reason=failure.code.value)
        moved = changes.follow(conn, row, following, actor=actor, now=now, failure=failure)
        changes.end_attempt(
            conn,
            row["id"],
            row["attempt"],
            outcome=outcome,
            code=failure.code.value,
            now=now,
            exit_code=exit_code,
            last_event_id=last_event_id,
        )
        return rows.job(moved)

    def _leave(
        self,
        conn: Connection,
        row: RowMapping,
        after: JobStatus,
        reason: str,
        values: Mapping[str, Any],
        *,
        last_event_id: str | None,
        exit_code: int | None,
    ) -> Job:
        now = self.clock.wall()
        moved = changes.move(conn, row, after, actor=_actor(row), reason=reason, now=now, values=values)
        changes.end_attempt(
            conn,
            row["id"],
            row["attempt"],
            outcome=after.value,
            now=now,
            exit_code=exit_code,
            last_event_id=last_event_id,
        )
        return rows.job(moved)


def _wish(row: RowMapping) -> Wish | None:
    return Wish(row["wish"]) if row["wish"] else None


def _over_time(row: RowMapping, last: Failure) -> Failure:
    message = f"the job has run for its {row['max_runtime_s']} s; its last attempt ended with: {last.message}"
    return Failure(FailureCode.TIMED_OUT, message, evidence={"cause": last.as_json()})


def _actor(row: RowMapping) -> str:
    return f"worker:{row['worker']}"


def _event_id(last_event_id: str | None) -> dict[str, Any]:
    return {"last_event_id": last_event_id} if last_event_id is not None else {}
