"""The job book against a model of it: whatever workers, owners and the reaper do in whatever order.

The model knows one job at a time and is written from the table of states, not from the code. Stale workers
and stale looks of the reaper take part: they must be refused and change nothing.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from api.domain.clock import ManualClock
from api.domain.errors import Conflict, Fenced
from api.domain.failures import Failure, FailureCode
from api.domain.leasing import Held
from api.domain.records import EpochRow, JobStatus, Wish
from api.domain.store import open_store
from tests.api.domain.library import OWNER, QUEUE, Library, hurry, make_template, pointer, short_settings

TEMPLATE = Path()
FINAL = {"succeeded", "failed", "cancelled"}
RETRIES = 2
# Ends are rare, so that jobs live through several attempts.
ONE_IN_FOUR = st.sampled_from([False, False, False, True])
HOW_STALE = st.sampled_from([0, 0, 0, 0, 1, 2])


@pytest.fixture(autouse=True, scope="module")
def _template(tmp_path_factory: pytest.TempPathFactory) -> None:
    global TEMPLATE
    TEMPLATE = make_template(tmp_path_factory.mktemp("machine"))


@dataclass
class Model:
    """What the job should be."""

    status: str = "queued"
    attempt: int = 0
    failures: int = 0
    preemptions: int = 0
    wish: str | None = None
    pointer_epoch: int | None = None
    has_best: bool = False
    due_in: bool = False
    next_epoch: int = 0
    epochs: dict[int, int] = field(default_factory=dict)
    steps: int = 1

    def go(self, status: str) -> None:
        self.status, self.wish, self.steps, self.due_in = status, None, self.steps + 1, False

    def go_by_wish(self) -> bool:
        if self.wish is None:
            return False
        stopped = "succeeded" if self.has_best else "cancelled"
        self.go({"cancel": "cancelled", "pause": "paused", "stop": stopped}[self.wish])
        return True

    def failed(self, *, verdict: bool) -> None:
        self.failures += 1
        if verdict:
            self.go("failed")
        elif not self.go_by_wish():
            retried = self.failures <= RETRIES
            self.go("queued" if retried else "failed")
            self.due_in = retried


class BookMachine(RuleBasedStateMachine):
    """One job, its owner, any number of workers (mostly dead ones), and a reaper."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        shutil.copyfile(TEMPLATE, self.folder / "book.sqlite3")
        config = short_settings(self.folder, job_retries=RETRIES)
        store = open_store(config)
        hurry(store)
        self.library = Library(config, store, ManualClock())
        self.book = self.library.jobs
        self.new = self.library.new_job()
        self.another()

    def teardown(self) -> None:
        if hasattr(self, "library"):
            self.library.store.close()
            shutil.rmtree(self.folder)

    @rule(data=st.data())
    def act(self, data: st.DataObject) -> None:
        """Do one of the things that can matter now: one rule, so that no run lacks claims or heartbeats."""
        self.draw = data.draw
        model = self.model
        actions = [self.heartbeat, self.wish, self.activate, self.fail, self.release]
        if model.status == "running":
            actions += [self.epoch, self.epoch, self.checkpoint, self.look, self.look, self.heartbeat]
        if model.status == "queued":
            actions += [self.claim, self.claim, self.claim_in_time, self.claim_in_time]
        if self.looks:
            actions += [self.expire, self.expire]
        if model.status in FINAL:
            actions += [self.another] * 6
        if model.attempt > 1:
            actions += [self.finish]
        self.draw(st.sampled_from(actions))()

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
        return True

    def another(self) -> None:
        self.job_id = self.book.submit(self.new).job.id
        self.model = Model()
        self.looks: list[Held] = []

    def claim_in_time(self) -> None:
        self.time_passes()
        self.claim()

    def claim(self) -> None:
        claim = self.book.claim(QUEUE, "w")
        if self.model.status != "queued" or self.model.due_in:
            assert claim is None
            return
        assert claim is not None
        model = self.model
        model.attempt += 1
        model.status, model.steps = "running", model.steps + 1
        first = model.pointer_epoch or 0
        model.epochs = {epoch: by for epoch, by in model.epochs.items() if epoch < first}
        model.next_epoch = first
        assert claim.attempt == model.attempt

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

    def finish(self) -> None:
        attempt = self.some_attempt()
        if not self.fenced(lambda: self.book.finish(self.job_id, attempt), attempt):
            self.model.go("succeeded")

    def fail(self) -> None:
        attempt, verdict = self.some_attempt(), self.draw(ONE_IN_FOUR)
        code = FailureCode.CONFIG_INVALID if verdict else FailureCode.CRASHED
        if not self.fenced(lambda: self.book.fail(self.job_id, attempt, Failure(code, "m")), attempt):
            self.model.failed(verdict=verdict)

    def release(self) -> None:
        attempt, drained = self.some_attempt(), self.draw(st.booleans())
        if not self.fenced(lambda: self.book.release(self.job_id, attempt, drained=drained), attempt):
            self.model.preemptions += drained
            if not self.model.go_by_wish():
                self.model.go("queued")

    def look(self) -> None:
        self.looks += self.book.held()

    def expire(self) -> None:
        seen = self.draw(st.sampled_from(self.looks[::-1]))
        current = self.book.get(self.job_id)
        moved = not self.mine(seen.attempt) or current.lease_seq != seen.lease_seq
        assert (self.book.expire(seen) is None) == moved
        if not moved:
            self.model.failed(verdict=False)

    def wish(self) -> None:
        wish = self.draw(st.sampled_from([Wish.PAUSE, Wish.PAUSE, Wish.STOP, Wish.CANCEL]))
        call = {"cancel": self.book.cancel, "stop": self.book.stop, "pause": self.book.pause}[wish]
        model = self.model
        stopped = "succeeded" if model.has_best else "cancelled"
        goal = {"cancel": "cancelled", "pause": "paused", "stop": stopped}[wish.value]
        if model.status in FINAL and model.status != goal:
            with pytest.raises(Conflict):
                call(self.job_id, OWNER)
            return
        call(self.job_id, OWNER)
        if model.status == "running":
            order = ["cancel", "stop", "pause", None]
            model.wish = min(model.wish, wish.value, key=order.index)
        elif model.status != goal:
            model.go(goal)

    def activate(self) -> None:
        model = self.model
        if model.status in FINAL:
            with pytest.raises(Conflict):
                self.book.activate(self.job_id, OWNER)
            return
        self.book.activate(self.job_id, OWNER)
        model.due_in = False
        if model.status == "paused":
            model.go("queued")
        elif model.wish == "pause":
            model.wish = None

    def time_passes(self) -> None:
        self.library.clock.advance(5)
        self.model.due_in = False

    @invariant()
    def the_book_is_the_model(self) -> None:
        if not hasattr(self, "book"):
            return
        job, model = self.book.get(self.job_id), self.model
        assert (job.status, job.attempt, job.wish) == (model.status, model.attempt, model.wish)
        assert (job.failures, job.preemptions) == (model.failures, model.preemptions)
        assert (job.pointer.epoch if job.pointer else None) == model.pointer_epoch
        assert (job.finished_at is not None) == (model.status in FINAL)
        assert (job.worker is not None) == (model.status == "running")
        rows = [(row.epoch, row.attempt) for row in self.book.epochs(self.job_id)]
        assert rows == sorted(model.epochs.items())

    @invariant()
    def the_trail_is_a_chain(self) -> None:
        if not hasattr(self, "book"):
            return
        trail = self.book.transitions(self.job_id)
        assert len(trail) == self.model.steps
        assert [step.from_status for step in trail] == [None, *(step.to_status for step in trail[:-1])]
        assert trail[-1].to_status == JobStatus(self.model.status)
        assert len(self.book.attempts(self.job_id)) == self.model.attempt


BookMachine.TestCase.settings = settings(
    max_examples=22, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestBook = BookMachine.TestCase
