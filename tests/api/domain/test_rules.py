"""What follows an attempt, as a table."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.domain.failures import POLICIES, Failure, FailureCode, parse_code
from api.domain.records import JobStatus, TaskStatus, Wish
from api.domain.rules import (
    RetryRules,
    after_failure,
    after_release,
    after_task_failure,
    granted,
    job_retry_rules,
    outranked_by,
)
from api.domain.settings import Settings

RULES = RetryRules(retries=2, backoff_s=10.0, backoff_max_s=30.0)
CRASH = Failure(FailureCode.CRASHED, "signal 11")
VERDICT = Failure(FailureCode.DATASET_INVALID, "no images")
Q, P, S, F, C = JobStatus.QUEUED, JobStatus.PAUSED, JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED


@pytest.mark.parametrize(
    ("failure", "wish", "has", "failures", "status", "pause_s"),
    [
        (CRASH, None, "", 0, Q, 10.0),
        (CRASH, None, "", 1, Q, 20.0),
        (CRASH, None, "best", 2, F, 0.0),
        (CRASH, Wish.CANCEL, "best", 0, C, 0.0),
        (CRASH, Wish.PAUSE, "", 0, P, 0.0),
        (CRASH, Wish.PAUSE, "", 2, P, 0.0),
        (CRASH, Wish.STOP, "best weights", 0, S, 0.0),
        (CRASH, Wish.STOP, "best weights", 2, S, 0.0),
        (CRASH, Wish.STOP, "best", 0, Q, 10.0),
        (CRASH, Wish.STOP, "best", 1, Q, 20.0),
        (CRASH, Wish.STOP, "best", 2, F, 0.0),
        (CRASH, Wish.STOP, "", 0, C, 0.0),
        (VERDICT, None, "best", 0, F, 0.0),
        (VERDICT, Wish.CANCEL, "best", 0, F, 0.0),
        (VERDICT, Wish.STOP, "best", 0, F, 0.0),
    ],
)
def test_after_failure(
    failure: Failure, wish: Wish | None, has: str, failures: int, status: JobStatus, pause_s: float
) -> None:
    following = after_failure(
        failure,
        wish=wish,
        has_best="best" in has,
        has_weights="weights" in has,
        failures=failures,
        preemptions=7,
        rules=RULES,
    )
    assert (following.status, following.pause_s) == (status, pause_s)
    assert (following.failures, following.preemptions) == (failures + 1, 7)
    assert following.wish is (wish if status is Q else None)


@pytest.mark.parametrize(
    ("wish", "has", "drained", "status"),
    [
        (None, "", True, Q),
        (None, "", False, Q),
        (Wish.CANCEL, "best", False, C),
        (Wish.CANCEL, "best", True, C),
        (Wish.PAUSE, "", False, P),
        (Wish.STOP, "best weights", False, S),
        (Wish.STOP, "best", False, Q),
        (Wish.STOP, "best", True, Q),
        (Wish.STOP, "", True, C),
    ],
)
def test_after_release(wish: Wish | None, has: str, drained: bool, status: JobStatus) -> None:
    following = after_release(
        wish=wish,
        has_best="best" in has,
        has_weights="weights" in has,
        failures=1,
        preemptions=4,
        drained=drained,
    )
    assert following.status is status
    assert following.wish is (wish if status is Q else None)
    assert (following.failures, following.preemptions) == (1, 4 + drained)
    assert following.pause_s == 0.0


@pytest.mark.parametrize(
    ("failure", "wish", "failures", "status"),
    [
        (CRASH, None, 0, TaskStatus.QUEUED),
        (CRASH, None, 1, TaskStatus.QUEUED),
        (CRASH, None, 2, TaskStatus.FAILED),
        (CRASH, Wish.CANCEL, 0, TaskStatus.CANCELLED),
        (VERDICT, None, 0, TaskStatus.FAILED),
    ],
)
def test_after_task_failure(failure: Failure, wish: Wish | None, failures: int, status: TaskStatus) -> None:
    assert after_task_failure(failure, wish=wish, failures=failures, rules=RULES).status is status


@pytest.mark.parametrize(
    ("code", "of_cause", "status"),
    [
        (FailureCode.STALLED, 0, Q),
        (FailureCode.STALLED, 1, Q),
        (FailureCode.STALLED, 2, F),
        (FailureCode.SEGFAULT, 2, Q),
        (FailureCode.SEGFAULT, 3, F),
        (FailureCode.WORKER_LOST, 9, Q),
        (FailureCode.KILLED, 9, Q),
        (FailureCode.TIMED_OUT, 0, F),
    ],
)
def test_a_cause_has_a_budget_of_its_own(code: FailureCode, of_cause: int, status: JobStatus) -> None:
    following = after_failure(
        Failure(code, "m"),
        wish=None,
        has_best=False,
        has_weights=False,
        failures=1,
        preemptions=0,
        rules=RULES,
        of_cause=of_cause,
    )
    assert following.status is status


def test_a_cause_may_need_a_longer_pause() -> None:
    for code, pause_s in ((FailureCode.KILLED, 10.0), (FailureCode.DISK_FULL, 30.0)):
        following = after_failure(
            Failure(code, "m"),
            wish=None,
            has_best=False,
            has_weights=False,
            failures=0,
            preemptions=0,
            rules=RULES,
        )
        assert following.pause_s == pause_s


def test_wishes_have_an_order() -> None:
    assert outranked_by(Wish.CANCEL) == [Wish.STOP, Wish.PAUSE]
    assert outranked_by(Wish.STOP) == [Wish.PAUSE]
    assert outranked_by(Wish.PAUSE) == []
    assert granted(Wish.CANCEL, has_best=True, has_weights=True) is C


def test_pauses_grow_to_a_bound() -> None:
    assert [RULES.pause_s(n) for n in (1, 2, 3, 4, 1000)] == [10.0, 20.0, 30.0, 30.0, 30.0]


def test_what_failed_together_comes_back_spread_at_production_periods(tmp_path: Path) -> None:
    rules, ids = job_retry_rules(Settings(data_dir=tmp_path)), [f"job_{n}" for n in range(500)]
    for failures, nominal_s in ((1, 10.0), (2, 20.0), (3, 40.0), (4, 80.0), (5, 160.0)):
        pauses = [rules.pause_s(failures, key=key) for key in ids]
        assert pauses == [rules.pause_s(failures, key=key) for key in ids]
        assert 0.8 * nominal_s <= min(pauses) < 0.82 * nominal_s
        assert 1.18 * nominal_s < max(pauses) <= 1.2 * nominal_s
        assert sum(pauses) / len(pauses) == pytest.approx(nominal_s, rel=0.03)
        assert len(set(pauses)) == len(ids)
    # Neither are they in the same order each time.
    assert sorted(ids, key=lambda key: rules.pause_s(1, key=key)) != sorted(
        ids, key=lambda key: rules.pause_s(2, key=key)
    )
    assert max(rules.pause_s(30, key=key) for key in ids) == rules.backoff_max_s


def test_the_wait_of_a_failed_job_is_its_own() -> None:
    def pause_s(key: str | None) -> float:
        return after_failure(
            CRASH,
            wish=None,
            has_best=False,
            has_weights=False,
            failures=0,
            preemptions=0,
            rules=RULES,
            key=key,
        ).pause_s

    assert pause_s(None) == 10.0
    assert pause_s("job_1") == RULES.pause_s(1, key="job_1") != pause_s("job_2")


def test_the_wait_of_a_failed_task_is_its_own() -> None:
    def pause_s(key: str | None) -> float:
        return after_task_failure(CRASH, wish=None, failures=0, rules=RULES, key=key).pause_s

    assert pause_s(None) == 10.0
    assert pause_s("task_1") == RULES.pause_s(1, key="task_1") != pause_s("task_2")


def test_every_failure_has_a_hint() -> None:
    assert set(POLICIES) == set(FailureCode)
    assert all(policy.hint.endswith(".") for policy in POLICIES.values())


@pytest.mark.parametrize(
    ("code", "evidence", "retried"),
    [
        (FailureCode.OUT_OF_MEMORY, {}, False),
        (FailureCode.OUT_OF_MEMORY, {"batches_done": 0}, False),
        (FailureCode.OUT_OF_MEMORY, {"batches_done": 40}, True),
        (FailureCode.CONFIG_INVALID, {}, False),
        (FailureCode.NON_FINITE, {}, False),
        (FailureCode.WORKER_LOST, {}, True),
        (FailureCode.KILLED, {}, True),
        (FailureCode.SEGFAULT, {}, True),
        (FailureCode.STALLED, {}, True),
        (FailureCode.TIMED_OUT, {}, False),
        (FailureCode.DISK_FULL, {}, True),
    ],
)
def test_retried(code: FailureCode, evidence: dict[str, int], retried: bool) -> None:
    assert Failure(code, "m", evidence=evidence).retried is retried


def test_unknown_code_is_ours() -> None:
    assert parse_code("NON_FINITE") is FailureCode.NON_FINITE
    assert parse_code("WHATEVER") is parse_code(None) is FailureCode.INTERNAL
