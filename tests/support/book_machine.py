"""The job book against a model of it: whatever workers, owners and the reaper do in whatever order.

The model holds several jobs of two owners and is written from the table of states, not from the code. Stale
workers (also between reaping and the next claim) and stale looks of the reaper take part: they must be
refused and change nothing. After each step the jobs that it was about are compared, at the end all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from api.domain.errors import Changed, Conflict, Fenced, NotFound
from api.domain.failures import Failure, FailureCode
from api.domain.leasing import Held
from api.domain.records import Artifact, EpochRow, JobStatus, Wish
from tests.api.domain.library import OTHER, OWNER, QUEUE, Library, pointer

FINAL = {"succeeded", "failed", "cancelled"}
RETRIES = 2
STALLS = 2
RUNNING_EACH = 2
MOST_JOBS = 4
# Ends are rare, so that jobs live through several attempts.
ONE_IN_FOUR = st.sampled_from([False, False, False, True])
HOW_STALE = st.sampled_from([0, 0, 0, 0, 1, 2])
CAUSES = {"CONFIG_INVALID": True, "CRASHED": False, "STALLED": False}
ENDS = st.sampled_from(["CRASHED", "STALLED", "CRASHED", "CONFIG_INVALID"])
LOG = Artifact("train.log", "log", "f" * 64, 5, "text/plain")
WEIGHTS = Artifact("best.pt", "weights", "e" * 64, 5, "application/octet-stream")

Open = Callable[[], AbstractContextManager[Library]]


@dataclass
class Model:
    """What a job should be."""

    id: str
    owner: str
    priority: int
    status: str = "queued"
    attempt: int = 0
    failures: int = 0
    stalls: int = 0
    preemptions: int = 0
    wish: str | None = None
    pointer_epoch: int | None = None
    has_best: bool = False
    has_weights: bool = False
    due_in: bool = False
    next_epoch: int = 0
    epochs: dict[int, int] = field(default_factory=dict)
    trail: list[str] = field(default_factory=lambda: ["queued"])

    def go(self, status: str, wish: str | None = None) -> None:
        self.status, self.wish, self.due_in = status, wish, False
        self.trail.append(status)

    @property
    def stopped(self) -> str:
        """Where a stop leads to: to another attempt as long as the weights of the best are not stored."""
        if not self.has_best:
            return "cancelled"
        return "succeeded" if self.has_weights else "queued"

    def go_by_wish(self) -> bool:
        if self.wish is None or (self.wish == "stop" and self.stopped == "queued"):
            return False
        self.go({"cancel": "cancelled", "pause": "paused", "stop": self.stopped}[self.wish])
        return True

    def failed(self, code: str) -> None:
        self.failures += 1
        spent = code == "STALLED" and self.stalls >= STALLS
        self.stalls += code == "STALLED"
        if CAUSES.get(code):
            self.go("failed")
        elif not self.go_by_wish():
            retried = self.failures <= RETRIES and not spent
            self.go("queued" if retried else "failed", self.wish if retried else None)
            self.due_in = retried


class BookMachine(RuleBasedStateMachine):
    """Some jobs, their owners, any number of workers (mostly dead ones), and a reaper."""

    def __init__(self, open_library: Open, counts: Counter[str]) -> None:
        super().__init__()
        self.counts = counts
        self._opened = open_library()
        self.library = self._opened.__enter__()

    @initialize()
    def begin(self) -> None:
        self.book = self.library.jobs
        self.new = {owner: self.library.new_job(owner=owner) for owner in (OWNER, OTHER)}
        self.models: dict[str, Model] = {}
        self.looks: list[Held] = []
        self.touched: set[str] = set()
        self.counts["examples"] += 1
        self.submit(OWNER, 0)

    def teardown(self) -> None:
        try:
            if hasattr(self, "touched"):
                self.touched = set(self.models)
                self.the_book_is_the_model()
        finally:
            self._opened.__exit__(None, None, None)

    @rule(data=st.data())
    def act(self, data: st.DataObject) -> None:
        """Do one of the things that can matter now: one rule, so that no run lacks claims or heartbeats."""
        self.draw = data.draw
        self.model = model = self.models[self.draw(st.sampled_from(sorted(self.models)))]
        self.touched.add(model.id)
        actions = [self.heartbeat, self.wish, self.activate, self.fail, self.release, self.edit]
        actions += [self.claim, self.claim_in_time, self.claim_in_time]
        if model.status == "running":
            actions += [self.epoch, self.epoch, self.checkpoint, self.look, self.look, self.heartbeat]
            actions += [self.export] if model.has_best else []
        if model.status == "queued" and model.attempt:
            actions += [self.zombie, self.zombie]
        if model.attempt and model.status in FINAL:
            actions += [self.zombie]
        if self.looks:
            actions += [self.expire, self.expire, self.expire]
        if len(self.models) < MOST_JOBS:
            actions += [self.another, self.another]
        if model.status in FINAL:
            actions += [self.delete] * 2
        if model.attempt > 1:
            actions += [self.finish]
        action = self.draw(st.sampled_from(actions))
        self.counts["steps"] += 1
        action()

    @property
    def job_id(self) -> str:
        return self.model.id

    def some_attempt(self) -> int:
        return self.model.attempt - self.draw(HOW_STALE)

    def mine(self, attempt: int) -> bool:
        return self.model.status == "running" and attempt == self.model.attempt

    def fenced(self, call: Any, attempt: int) -> bool:
        """Make a worker's call; it must be refused exactly if the attempt does not own the job."""
        if self.mine(attempt):
            call()
            return False
        with pytest.raises(Fenced):
            call()
        self.counts["stale calls refused"] += 1
        return True

    def submit(self, owner: str, priority: int) -> None:
        new = type(self.new[owner])(**{**self.new[owner].__dict__, "priority": priority})
        job = self.book.submit(new)
        self.models[job.job.id] = Model(job.job.id, owner, priority)
        self.touched.add(job.job.id)

    def another(self) -> None:
        self.submit(self.draw(st.sampled_from([OWNER, OWNER, OTHER])), self.draw(st.integers(-1, 1)))

    def next_claim(self) -> Model | None:
        """Return the job a claim must give: of those that are due, the highest and oldest of a free owner."""
        running = Counter(model.owner for model in self.models.values() if model.status == "running")
        waiting = [
            model
            for model in self.models.values()
            if model.status == "queued" and not model.due_in and running[model.owner] < RUNNING_EACH
        ]
        return min(waiting, key=lambda model: (-model.priority, model.id), default=None)

    def claim_in_time(self) -> None:
        self.time_passes()
        self.claim()

    def claim(self) -> None:
        model = self.next_claim()
        claim = self.book.claim(QUEUE, "w")
        assert (claim.job.id if claim is not None else None) == (model.id if model is not None else None)
        if claim is None or model is None:
            return
        model.attempt += 1
        model.go("running", model.wish)
        self.counts["stops that stand"] += model.wish is not None
        assert claim.job.wish == model.wish
        first = model.pointer_epoch or 0
        model.epochs = {epoch: by for epoch, by in model.epochs.items() if epoch < first}
        model.next_epoch = first
        assert claim.attempt == model.attempt
        self.touched.add(model.id)
        self.counts["claims"] += 1

    def zombie(self) -> None:
        """Let every attempt that was make every write, while nobody runs the job: nothing may change."""
        book, job_id = self.book, self.job_id
        before = (book.get(job_id), book.epochs(job_id, with_superseded=True), book.artifacts(job_id))
        row, at = EpochRow(9, {"fitness": 0.9, "best": True}), pointer
        for attempt in range(1, self.model.attempt + 1):
            calls: list[Callable[[], object]] = [
                lambda n=attempt: book.heartbeat(job_id, n),  # type: ignore[misc]
                lambda n=attempt: book.record_progress(job_id, n, {"epoch": 9}),  # type: ignore[misc]
                lambda n=attempt: book.record_epochs(job_id, n, [row]),  # type: ignore[misc]
                lambda n=attempt: book.move_pointer(job_id, n, at(n, 9), [row]),  # type: ignore[misc]
                lambda n=attempt: book.add_artifacts(job_id, n, [LOG]),  # type: ignore[misc]
                lambda n=attempt: book.finish(job_id, n, epochs=[row], artifacts=[LOG]),  # type: ignore[misc]
            ]
            for call in calls:
                assert self.fenced(call, attempt)
        after = (book.get(job_id), book.epochs(job_id, with_superseded=True), book.artifacts(job_id))
        assert after == before
        self.counts["zombies between attempts"] += self.model.status == "queued"

    def heartbeat(self) -> None:
        attempt = self.some_attempt()
        seen: list[Wish | None] = []
        if not self.fenced(lambda: seen.append(self.book.heartbeat(self.job_id, attempt)), attempt):
            assert seen == [self.model.wish]

    def epoch(self) -> None:
        attempt, epoch, best = self.some_attempt(), self.model.next_epoch, self.draw(st.booleans())
        row = EpochRow(epoch, {"fitness": 0.1, "best": best})
        if not self.fenced(lambda: self.book.record_epochs(self.job_id, attempt, [row]), attempt):
            self.model.epochs[epoch] = attempt
            self.model.next_epoch += 1

    def checkpoint(self) -> None:
        attempt, epoch = self.some_attempt(), self.model.next_epoch
        best = self.model.has_best or self.draw(st.booleans())
        figures = {"epoch": 0, "fitness": 0.1} if best else None
        where = pointer(attempt, epoch, batch=self.draw(st.integers(0, 3)), best=figures)
        if not self.fenced(lambda: self.book.move_pointer(self.job_id, attempt, where), attempt):
            self.model.pointer_epoch = epoch
            self.model.has_best = figures is not None
            # What an earlier attempt has exported is older than this.
            self.model.has_weights = self.model.has_weights and attempt in self.exported(self.job_id)

    def exported(self, job_id: str) -> set[int]:
        return {one.attempt for one in self.book.artifacts(job_id) if one.name == WEIGHTS.name}

    def export(self) -> None:
        attempt = self.some_attempt()
        call = lambda: self.book.add_artifacts(self.job_id, attempt, [WEIGHTS])  # noqa: E731
        if not self.fenced(call, attempt):
            self.model.has_weights = True

    def finish(self) -> None:
        attempt = self.some_attempt()
        if not self.fenced(lambda: self.book.finish(self.job_id, attempt), attempt):
            self.model.go("succeeded")

    def fail(self) -> None:
        attempt, code = self.some_attempt(), self.draw(ENDS)
        failure = Failure(FailureCode(code), "m")
        if not self.fenced(lambda: self.book.fail(self.job_id, attempt, failure), attempt):
            self.model.failed(code)

    def release(self) -> None:
        attempt, drained = self.some_attempt(), self.draw(st.booleans())
        if not self.fenced(lambda: self.book.release(self.job_id, attempt, drained=drained), attempt):
            self.model.preemptions += drained
            if not self.model.go_by_wish():
                self.model.go("queued", self.model.wish)

    def look(self) -> None:
        self.looks += self.book.held()

    def expire(self) -> None:
        seen = self.draw(st.sampled_from(self.looks[::-1]))
        model = self.models.get(seen.id)
        moved = True
        if model is not None and model.status == "running" and model.attempt == seen.attempt:
            moved = self.book.get(seen.id).lease_seq != seen.lease_seq
        assert (self.book.expire(seen) is None) == moved
        if model is not None and not moved:
            model.failed("WORKER_LOST")
            self.touched.add(model.id)
            self.counts["claims reaped"] += 1

    def wish(self) -> None:
        wish = self.draw(st.sampled_from([Wish.PAUSE, Wish.PAUSE, Wish.STOP, Wish.CANCEL]))
        call = {"cancel": self.book.cancel, "stop": self.book.stop, "pause": self.book.pause}[wish]
        model = self.model
        stopped = "succeeded" if (model.status, model.has_best) == ("succeeded", True) else model.stopped
        goal = {"cancel": "cancelled", "pause": "paused", "stop": stopped}[wish.value]
        if model.status in FINAL and model.status != goal:
            with pytest.raises(Conflict):
                call(self.job_id, model.owner)
            return
        call(self.job_id, model.owner)
        order = ["cancel", "stop", "pause", None]
        if model.status == "running":
            model.wish = min(model.wish, wish.value, key=order.index)
        elif model.wish == "stop" and wish is not Wish.CANCEL:
            pass
        elif goal == "queued" and model.status == "queued":
            model.wish, model.due_in = "stop", False
        elif model.status != goal:
            model.go(goal, "stop" if goal == "queued" else None)

    def activate(self) -> None:
        model = self.model
        if model.status in FINAL:
            with pytest.raises(Conflict):
                self.book.activate(self.job_id, model.owner)
            return
        self.book.activate(self.job_id, model.owner)
        model.due_in = False
        if model.status == "paused":
            model.go("queued")
        elif model.wish == "pause" or model.status == "queued":
            model.wish = None

    def edit(self) -> None:
        model, priority = self.model, self.draw(st.integers(-1, 1))
        revision = self.book.get(model.id).revision
        if self.draw(ONE_IN_FOUR):
            with pytest.raises(Changed):
                self.book.reprioritise(model.id, priority, expected=revision - 1)
        elif model.status in FINAL:
            with pytest.raises(Conflict):
                self.book.reprioritise(model.id, priority, expected=revision)
        else:
            self.book.reprioritise(model.id, priority, model.owner, expected=revision)
            if priority != model.priority:
                model.trail.append(model.status)
            model.priority = priority

    def delete(self) -> None:
        assert self.book.delete(self.job_id, self.model.owner).status == JobStatus(self.model.status)
        with pytest.raises(NotFound):
            self.book.get(self.job_id)
        del self.models[self.job_id]
        self.touched.discard(self.job_id)
        if not self.models:
            self.submit(OWNER, 0)

    def time_passes(self) -> None:
        self.library.clock.advance(5)
        for model in self.models.values():
            model.due_in = False

    @invariant()
    def the_book_is_the_model(self) -> None:
        for job_id in sorted(getattr(self, "touched", ())):
            self.compare(self.models[job_id])
        self.touched = set()

    def compare(self, model: Model) -> None:
        job = self.book.get(model.id)
        assert (job.status, job.attempt, job.wish) == (model.status, model.attempt, model.wish)
        assert (job.failures, job.preemptions, job.priority) == (
            model.failures,
            model.preemptions,
            model.priority,
        )
        assert (job.pointer.epoch if job.pointer else None) == model.pointer_epoch
        assert (job.finished_at is not None) == (model.status in FINAL)
        assert (job.worker is not None) == (model.status == "running")
        rows = [(row.epoch, row.attempt) for row in self.book.epochs(model.id)]
        assert rows == sorted(model.epochs.items())
        # One audit row for each transition and new priority, a chain; attempts rise by one with each claim.
        trail = self.book.transitions(model.id)
        assert [step.to_status for step in trail] == model.trail
        assert [step.from_status for step in trail] == [None, *(step.to_status for step in trail[:-1])]
        moves = [step for step in trail if step.from_status != step.to_status]
        claimed = [step.attempt for step in moves if step.to_status == "running"]
        assert claimed == list(range(1, model.attempt + 1))
        assert [attempt.attempt for attempt in self.book.attempts(model.id)] == claimed
