"""The table of verdicts: exit code, result file and wish in, what becomes of the job out."""

import errno
from typing import Any

import pytest

from api.domain.failures import Failure, FailureCode
from worker.outcome import Exit, judge, storage_failure, stronger


def result(outcome: str, **more: Any) -> dict[str, Any]:
    return {"v": 1, "outcome": outcome, "kind": None, "code": None, "message": None, **more}


def stopped(kind: str) -> dict[str, Any]:
    return result("stopped", kind=kind)


VERDICTS = {
    "done": (Exit(0, result("succeeded")), "succeed"),
    "done although cancelled": (Exit(0, result("succeeded"), asked="cancel"), "succeed"),
    "cancelled": (Exit(75, stopped("cancel"), asked="cancel"), "cancel"),
    "paused": (Exit(75, stopped("pause"), asked="pause"), "pause"),
    "drained": (Exit(75, stopped("drain"), asked="drain"), "requeue"),
    "stopped with a best": (Exit(0, stopped("stop"), asked="stop", has_best=True), "succeed"),
    "stopped before a best": (Exit(0, stopped("stop"), asked="stop"), "cancel"),
    "killed while cancelling": (Exit(-9, None, asked="cancel"), "cancel"),
    "killed while draining": (Exit(-9, None, asked="drain"), "requeue"),
    "killed while pausing": (Exit(-15, None, asked="pause"), "pause"),
    "killed while stopping, without": (Exit(-9, None, asked="stop"), "cancel"),
}


@pytest.mark.parametrize(("end", "verb"), VERDICTS.values(), ids=list(VERDICTS))
def test_ends_that_are_no_failures(end: Exit, verb: str) -> None:
    verdict = judge(end)
    assert verdict.verb == verb
    assert verdict.failure is None


FAILURES = {
    "bad data": (Exit(65, result("failed", code="DATASET_INVALID")), FailureCode.DATASET_INVALID, False),
    "bad config": (Exit(65, result("failed", code="CONFIG_INVALID")), FailureCode.CONFIG_INVALID, False),
    "a finer code": (Exit(65, result("failed", code="LABEL_RANGE")), FailureCode.DATASET_INVALID, False),
    "bug": (Exit(70, result("failed", code="INTERNAL")), FailureCode.INTERNAL, True),
    "no memory": (Exit(71, result("failed", code="OUT_OF_MEMORY")), FailureCode.OUT_OF_MEMORY, False),
    "no memory, later": (
        Exit(71, result("failed", code="OUT_OF_MEMORY", evidence={"batches_done": 9})),
        FailureCode.OUT_OF_MEMORY,
        True,
    ),
    "disk full": (Exit(74, result("failed", code="DISK_FULL")), FailureCode.DISK_FULL, True),
    "not finite": (Exit(65, result("failed", code="NON_FINITE")), FailureCode.NON_FINITE, False),
    "no memory, resumed": (
        Exit(71, result("failed", code="OUT_OF_MEMORY", evidence={"batches_done": 0}), batches_done=1),
        FailureCode.OUT_OF_MEMORY,
        True,
    ),
    "silent memory": (Exit(71, None), FailureCode.OUT_OF_MEMORY, False),
    "killed": (Exit(-9, None), FailureCode.KILLED, True),
    "terminated": (Exit(-15, None), FailureCode.KILLED, True),
    "killed for memory at the first batch": (
        Exit(-9, None, oom_killed=True),
        FailureCode.OUT_OF_MEMORY,
        False,
    ),
    "killed for memory later": (
        Exit(-9, None, oom_killed=True, batches_done=7),
        FailureCode.OUT_OF_MEMORY,
        True,
    ),
    "another of the group killed for memory": (
        Exit(-15, None, oom_killed=True),
        FailureCode.KILLED,
        True,
    ),
    "segmentation fault": (Exit(-11, None), FailureCode.SEGFAULT, True),
    "bus error": (Exit(-7, None, oom_killed=True), FailureCode.SEGFAULT, True),
    "illegal instruction": (Exit(-4, None), FailureCode.SEGFAULT, True),
    "arithmetic fault": (Exit(-8, None), FailureCode.SEGFAULT, True),
    "abort": (Exit(-6, None), FailureCode.CRASHED, True),
    "non-zero exit": (Exit(1, None), FailureCode.CRASHED, True),
    "silent data error": (Exit(65, None), FailureCode.DATASET_INVALID, False),
    "silent bug": (Exit(70, None), FailureCode.INTERNAL, True),
    "silent disk": (Exit(74, None), FailureCode.DISK_FULL, True),
    "no result": (Exit(0, None), FailureCode.CRASHED, True),
    "stopped unasked": (Exit(75, None), FailureCode.CRASHED, True),
    "success with a bad exit": (Exit(3, result("succeeded")), FailureCode.CRASHED, True),
    "nonsense": (Exit(0, {"outcome": "stopped", "kind": "whatever"}), FailureCode.CRASHED, True),
    "killed while stopping, with a best": (
        Exit(-9, None, asked="stop", has_best=True),
        FailureCode.KILLED,
        True,
    ),
}


@pytest.mark.parametrize(("end", "code", "retried"), FAILURES.values(), ids=list(FAILURES))
def test_failures(end: Exit, code: FailureCode, retried: bool) -> None:
    failure = judge(end).failure
    assert failure is not None
    assert (failure.code, failure.retried) == (code, retried)
    assert failure.message


def test_a_failure_keeps_its_place_and_the_log_of_a_silent_death() -> None:
    told = judge(Exit(65, result("failed", code="LABEL_RANGE", message="m", place="a.txt:3", value=1.5)))
    assert told.failure is not None
    assert (told.failure.place, told.failure.value) == ("a.txt:3", "1.5")
    assert told.failure.evidence == {"cause": "LABEL_RANGE"}
    silent = judge(Exit(-9, None, log_tail="last words"))
    assert silent.failure is not None
    assert silent.failure.evidence == {"exit": -9, "log": "last words"}


def test_precedence_of_wishes() -> None:
    assert stronger(None, None) is None
    assert stronger("drain", None) == "drain"
    assert stronger("pause", "drain") == "pause"
    assert stronger("stop", "pause") == "stop"
    assert stronger("stop", "cancel") == "cancel"


STALLED = Failure(FailureCode.STALLED, "no progress")
OVERRULED = {
    "killed": Exit(-9, None, asked="drain", overruled=STALLED),
    "it listened": Exit(75, stopped("drain"), asked="drain", overruled=STALLED),
    "it finalised its best": Exit(0, stopped("stop"), asked="stop", has_best=True, overruled=STALLED),
    "it failed meanwhile": Exit(70, result("failed", code="INTERNAL"), asked="drain", overruled=STALLED),
}


@pytest.mark.parametrize("end", OVERRULED.values(), ids=list(OVERRULED))
def test_what_we_ended_ourselves_has_our_verdict(end: Exit) -> None:
    assert judge(end).failure is STALLED


def test_a_finish_beats_our_verdict() -> None:
    assert judge(Exit(0, result("succeeded"), asked="drain", overruled=STALLED)).verb == "succeed"


def test_a_full_disk_is_told_from_other_faults_of_storage() -> None:
    full = storage_failure("what", OSError(errno.ENOSPC, "No space left on device"))
    other = storage_failure("what", PermissionError(errno.EACCES, "no"))
    quota = storage_failure("what", OSError(errno.EDQUOT, "Disk quota exceeded"))
    codes = (full.code, other.code, quota.code)
    assert codes == (FailureCode.DISK_FULL, FailureCode.STORAGE_ERROR, FailureCode.DISK_FULL)
    assert full.message.startswith("what: ")
