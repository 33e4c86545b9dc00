"""Run one claimed job: start the child, keep the claim, ship what it tells, stop it, end the attempt.

The main loop only watches: SQL and Redis are written by threads of their own, so that a database or a Redis
that is away delays neither the training nor its end. It must not know what the child computes.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import structlog

from api.domain import wire
from api.domain.blobs import BlobStore
from api.domain.errors import Fenced, StoreUnavailable
from api.domain.failures import Failure, FailureCode
from api.domain.jobs import JobBook
from api.domain.records import Artifact, Claim, Pointer
from api.domain.records import Wish as BookWish
from api.domain.runs import RunBook
from api.domain.settings import Settings
from worker import tensorboard
from worker.attempt import (
    AttemptFolder,
    MissingCheckpointError,
    child_config,
    resume_section,
    write_config,
)
from worker.cache import DatasetCache, DatasetFiles, MissingDatasetError
from worker.child import Child, ChildSpec, describe_exit, tail_text
from worker.fleet import SlotSpec
from worker.hang import Vigil
from worker.journal import Journal
from worker.ladder import StopLadder, read_json
from worker.lease import LeaseKeeper
from worker.memory import OomWatch, oom_counter
from worker.outcome import Exit, Verdict, Wish, judge, storage_failure
from worker.patience import Patience
from worker.progress import Progress
from worker.rows import Owner, RowShipper
from worker.standby import Starter, trainer_environment
from worker.stream import StreamShipper, StreamTarget
from worker.watchdog import RunClock

_LOG = structlog.get_logger(__name__)
_T = TypeVar("_T")
POLL_S = 0.05
_SHIP_POLL_S = 0.2
_STREAM_FLUSH_S = 5.0
# After the child's own grace, for its last rows and the end of the attempt.
_DRAIN_EXTRA_S = 10.0


@dataclass(frozen=True)
class Tools:
    """What every run of a slot shares."""

    settings: Settings
    book: RunBook
    blobs: BlobStore
    cache: DatasetCache
    spawner: Starter
    slot: SlotSpec
    drain: threading.Event
    trainer_command: tuple[str, ...]
    oom_counter: Callable[[int], Path | None] = oom_counter


class Supervisor:
    """One attempt at one job, from claim to its end in the book."""

    def __init__(self, claim: Claim, tools: Tools) -> None:
        self._claim = claim
        self._tools = tools
        self._settings = tools.settings
        self._job_id = claim.job.id
        self._attempt = claim.attempt
        # Where this attempt really goes on from: none where the claim's pointer led nowhere.
        self._pointer: Pointer | None = claim.job.pointer
        self._rows: RowShipper | None = None
        self._shown: tuple[Any, ...] = ()
        self._exit_code: int | None = None
        self._patience = Patience(tools.drain, self._settings.stop_grace_s + _DRAIN_EXTRA_S)
        self.left_nothing = True
        self._held = contextlib.ExitStack()
        self._oom_killed = False
        # Why we end the run ourselves.
        self._overruled: Failure | None = None
        limit_s, now = claim.job.max_runtime_s, time.monotonic()
        self._clock = RunClock(limit_s, ran_s=claim.job.ran_s, now=now)
        self._lease = LeaseKeeper(self._renew, period_s=self._settings.heartbeat_s)
        self._lease.wish = claim.job.wish
        self._log = _LOG.bind(job=self._job_id, attempt=self._attempt)

    def run(self) -> None:
        """Do the whole attempt; returns when the book knows how it ended, or that it is no longer ours."""
        self._lease.start()
        try:
            folder = AttemptFolder(self._settings.attempt_dir(self._job_id, self._attempt))
            verdict = self._carry_out(folder)
            if verdict is not None:
                self._persist(lambda: self._settle(verdict, folder))
        except Fenced:
            self._log.warning("the job is no longer ours, all of this attempt is discarded")
        finally:
            self._lease.stop()
            # Last: making room in the cache may take a while.
            self._held.close()

    def _carry_out(self, folder: AttemptFolder) -> Verdict | None:
        """Run the child to its end and ship all it told; return the verdict, None if the claim was lost."""
        if self._is_over_time():
            return Verdict("fail", self._over_time())
        manifest_hash = self._claim.dataset.manifest_hash
        assert manifest_hash is not None, "a claimed job has a dataset that is ready"
        try:
            child = self._spawn(folder, self._held.enter_context(self._tools.cache.hold(manifest_hash)))
        except (MissingDatasetError, OSError) as error:
            return Verdict("fail", storage_failure("the run could not be set up", error))
        journal = Journal(folder.journal)
        rows, stream = self._shippers(folder, journal)
        try:
            ladder = StopLadder(child, folder.path, grace_s=self._settings.stop_grace_s)
            self._exit_code = self._watch(child, ladder, rows, Vigil(folder, journal, self._settings))
        finally:
            child.kill()
            self.left_nothing = child.left_nothing
        self._log.info("child ended", how=describe_exit(self._exit_code))
        if self._is_fenced(rows) or not self._ship_rest(rows, stream):
            rows.give_up()
            stream.abandon()
            reason = "the claim is lost" if self._is_fenced(rows) else "draining, and the database is away"
            self._log.warning("the end of the attempt is left to whoever holds the job", reason=reason)
            return None
        return self._judge(folder, rows, ladder.asked)

    def _spawn(self, folder: AttemptFolder, files: DatasetFiles) -> Child:
        config = child_config(
            self._claim,
            files,
            self._settings,
            device=self._tools.slot.device(self._settings.device),
            resume=self._resume(folder),
        )
        write_config(folder, config)
        threads = self._claim.job.config.get("threads")
        return self._tools.spawner.spawn(
            ChildSpec(
                argv=(*self._tools.trainer_command, str(folder.path)),
                environment=trainer_environment(self._settings, self._tools.slot, threads),
                folder=folder.path,
                log=folder.log,
            )
        )

    def _resume(self, folder: AttemptFolder) -> dict[str, Any] | None:
        try:
            return resume_section(self._pointer, folder.job_folder)
        except MissingCheckpointError as error:
            self._log.error("starting from the beginning", reason=str(error))
            self._persist(lambda: self._tools.book.drop_pointer(self._job_id, self._attempt))
            self._pointer = None
            return None

    def _shippers(self, folder: AttemptFolder, journal: Journal) -> tuple[RowShipper, StreamShipper]:
        settings = self._settings
        rows = RowShipper(
            journal,
            folder,
            Owner(self._job_id, self._attempt),
            self._tools.book,
            self._tools.blobs,
            progress=Progress(
                epochs=_epochs(self._claim), best=self._pointer.best if self._pointer else None
            ),
            on_milestone=self._lease.nudge,
            poll_s=_SHIP_POLL_S,
            backoff_s=min(1.0, settings.heartbeat_s),
        )
        target = StreamTarget(
            wire.events_key(self._job_id),
            self._attempt,
            settings.stream_max_events,
            int(settings.stream_ttl_running_s),
            int(settings.stream_ttl_final_s),
            self._fields,
        )
        stream = StreamShipper(
            journal,
            target,
            self._lease,
            redis_url=settings.redis_url,
            poll_s=_SHIP_POLL_S,
            backoff_s=min(1.0, settings.heartbeat_s),
            check_s=settings.heartbeat_s,
            # The other half is for what is under way when the claim begins to be in doubt.
            trust_s=settings.lease_s / 2,
        )
        self._rows = rows
        rows.start()
        stream.start()
        return rows, stream

    def _fields(self, event: dict[str, Any]) -> dict[str, str]:
        told = wire.journal_event(json.dumps(event), job_id=self._job_id, attempt=self._attempt)
        return wire.stream_fields(told)

    def _renew(self) -> BookWish | None:
        """Renew the claim, and show how far the run is where that has changed."""
        rows, book = self._rows, self._tools.book
        progress = rows.progress if rows is not None else Progress()
        values = (progress.values(), progress.phase, rows.last_event_id if rows is not None else None)
        if values == self._shown:
            return book.heartbeat(self._job_id, self._attempt)
        wish = book.record_progress(
            self._job_id, self._attempt, values[0], phase=values[1], last_event_id=values[2]
        )
        self._shown = values
        return wish

    def _watch(self, child: Child, ladder: StopLadder, rows: RowShipper, vigil: Vigil) -> int:
        oom = OomWatch(self._tools.oom_counter(child.pid))
        while (code := child.wait(POLL_S)) is None:
            if self._is_fenced(rows) or rows.problem is not None:
                return child.kill()
            ladder.ask(self._wanted(rows))
            if self._patience.is_tried():
                ladder.ask("drain")
            if ladder.asked is None:
                self._overrule(child, ladder, vigil)
            oom.look()
            ladder.step()
        self._oom_killed = oom.has_killed()
        return code

    def _wanted(self, rows: RowShipper) -> Wish | None:
        """Return what the child is to be asked for now.

        One that goes on from a checkpoint can deliver its best only once it has read it, so a stop waits
        until it trains.
        """
        wish = _asked(self._lease.wish)
        reads = rows.progress.phase in (None, "preparing")
        if wish == "stop" and reads and self._pointer is not None and self._pointer.best is not None:
            return None
        return wish

    def _is_over_time(self) -> bool:
        """Tell whether the run has had its time; what is stopped ends anyway, with its weights."""
        return self._lease.wish is not BookWish.STOP and self._clock.is_over(time.monotonic())

    def _overrule(self, child: Child, ladder: StopLadder, vigil: Vigil) -> None:
        """End a run that has had its time, keeping the best so far, or that hangs."""
        if self._is_over_time():
            self._overruled = self._over_time()
            ladder.ask("stop")
        elif vigil.hangs():
            self._overruled = vigil.failure(child)
            # Listening would be a surprise; then the next attempt goes on from here.
            ladder.ask("drain")
        if self._overruled is not None:
            self._log.warning("ending the run", failure=self._overruled.message)

    def _over_time(self) -> Failure:
        limit_s = self._clock.limit_s
        return Failure(FailureCode.TIMED_OUT, f"the job has run for its maximum runtime of {limit_s:g} s")

    def _is_fenced(self, rows: RowShipper) -> bool:
        return self._lease.fenced.is_set() or rows.fenced.is_set()

    def _ship_rest(self, rows: RowShipper, stream: StreamShipper) -> bool:
        """Bring rows and stream to the end of the journal; tell whether the attempt may be ended by us.

        SQL is waited for as long as the claim holds, when draining for a bounded time; the stream is not:
        readers find what it lacks in the journal itself.
        """
        finishing = threading.Thread(target=rows.finish, name="rows-finish", daemon=True)
        finishing.start()
        while not rows.is_done():
            if self._lease.fenced.is_set() or self._patience.is_over():
                return False
            finishing.join(POLL_S)
        if self._is_fenced(rows):
            return False
        if not stream.finish(_STREAM_FLUSH_S):
            self._log.warning("the event stream is incomplete, its journal is not")
        return True

    def _judge(self, folder: AttemptFolder, rows: RowShipper, asked: Wish | None) -> Verdict:
        if rows.problem is not None:
            return Verdict("fail", storage_failure("results not stored", rows.problem))
        assert self._exit_code is not None
        result = read_json(folder.result)
        return judge(
            Exit(
                self._exit_code,
                result if isinstance(result, dict) else None,
                asked,
                has_best=rows.progress.best is not None,
                log_tail=tail_text(folder.log),
                overruled=self._own_verdict(),
                oom_killed=self._oom_killed,
                batches_done=rows.progress.num_batches() + (1 if self._pointer is not None else 0),
            )
        )

    def _own_verdict(self) -> Failure | None:
        """Return why we ended the run, unless it is over as its owner wishes.

        One that hung before it delivered what a stop keeps is no such end.
        """
        verdict, wish = self._overruled, self._lease.wish
        hung = verdict is not None and verdict.retried and wish is BookWish.STOP
        return verdict if wish is None or hung else None

    def _settle(self, verdict: Verdict, folder: AttemptFolder) -> None:
        book, job_id, attempt = self._tools.book, self._job_id, self._attempt
        # What the row shows last is where the run really ended.
        self._renew()
        ended: dict[str, Any] = {
            "artifacts": self._archive(folder),
            "last_event_id": self._rows.last_event_id if self._rows is not None else None,
            "exit_code": self._exit_code,
        }
        if verdict.verb == "succeed":
            book.finish(job_id, attempt, **ended)
        elif verdict.failure is not None:
            book.fail(job_id, attempt, verdict.failure, **ended)
        else:
            # Granting the wish is the book's business: it may have changed since the child was asked.
            book.release(job_id, attempt, drained=verdict.verb == "requeue", **ended)
        self._log.info("attempt ended", verdict=verdict.verb, failure=verdict.failure)

    def _archive(self, folder: AttemptFolder) -> list[Artifact]:
        """Store log and journal as blobs, so that they outlive the folder."""
        found = []
        for path, media_type in ((folder.log, "text/plain"), (folder.journal, "application/jsonl")):
            try:
                blob = self._tools.blobs.put_file(path)
            except OSError as error:
                # No reason to withhold the verdict; the file stays in the attempt's folder.
                self._log.warning("not archived", name=path.name, error=str(error))
            else:
                found.append(Artifact(path.name, "log", blob.sha256, blob.size_bytes, media_type))
        if self._settings.tensorboard:
            found += self._tensorboard()
        return found

    def _tensorboard(self) -> list[Artifact]:
        """Store the epochs that count as a TensorBoard file; it is no reason to withhold the verdict."""
        name, book = tensorboard.file_name(self._job_id), self._tools.book
        try:
            rows = JobBook(book.store, book.settings).epochs(self._job_id)
            blob = self._tools.blobs.put_bytes(tensorboard.event_file_of(rows, created_s=time.time()))
        except (OSError, StoreUnavailable) as error:
            self._log.warning("no TensorBoard file", error=str(error))
            return []
        return [Artifact(name, "table", blob.sha256, blob.size_bytes, tensorboard.MEDIA_TYPE)]

    def _persist(self, write: Callable[[], _T]) -> _T:
        """Write to a database that may be away, as long as the claim holds; raises Fenced when it is lost."""
        while True:
            try:
                return write()
            except StoreUnavailable as error:
                if self._lease.fenced.is_set() or self._patience.is_over():
                    raise Fenced("the end of the attempt could not be written; the reaper will") from error
                time.sleep(min(1.0, self._settings.heartbeat_s))


def _asked(wish: BookWish | None) -> Wish | None:
    if wish is None:
        return None
    names: dict[BookWish, Wish] = {
        BookWish.CANCEL: "cancel",
        BookWish.STOP: "stop",
        BookWish.PAUSE: "pause",
    }
    return names[wish]


def _epochs(claim: Claim) -> int | None:
    epochs = claim.job.config.get("epochs")
    return int(epochs) if epochs is not None else None
