"""The closed list of reasons a job or task can fail for, each with a hint and whether trying again may help.

A user's mistake is a verdict: it is never retried. Ours, and the machine's, are retried with growing pauses
until the budget is spent. Knows nothing of rows; `rules` turns this into states.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class FailureCode(StrEnum):
    """Why a job or a task failed."""

    DATASET_INVALID = "DATASET_INVALID"
    ARCHITECTURE_INVALID = "ARCHITECTURE_INVALID"
    CONFIG_INVALID = "CONFIG_INVALID"
    CHECKPOINT_INVALID = "CHECKPOINT_INVALID"
    NON_FINITE = "NON_FINITE"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    DISK_FULL = "DISK_FULL"
    CRASHED = "CRASHED"
    KILLED = "KILLED"
    SEGFAULT = "SEGFAULT"
    WORKER_LOST = "WORKER_LOST"
    STALLED = "STALLED"
    TIMED_OUT = "TIMED_OUT"
    STORAGE_ERROR = "STORAGE_ERROR"
    SERVICE_ERROR = "SERVICE_ERROR"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True)
class Policy:
    """What to tell the user, and whether another attempt may end otherwise.

    `retries` bounds how often failures of this cause are retried, within the budget of the whole job; None
    leaves it at that. `backoff` stretches the pause before a retry.
    """

    hint: str
    retried: bool
    retries: int | None = None
    backoff: float = 1.0


POLICIES: Mapping[FailureCode, Policy] = {
    FailureCode.DATASET_INVALID: Policy(
        "The dataset's report lists every problem with file and line; mend them and upload it again.", False
    ),
    FailureCode.ARCHITECTURE_INVALID: Policy(
        "The model YAML cannot become a network; check it with `trainshed models check`.", False
    ),
    FailureCode.CONFIG_INVALID: Policy(
        "A setting of the run is out of bounds or contradicts another; see place and value.", False
    ),
    FailureCode.CHECKPOINT_INVALID: Policy(
        "The checkpoint is damaged or belongs to another network; start a new job.", False
    ),
    FailureCode.NON_FINITE: Policy(
        "Losses became NaN or infinite in full precision; look at the named images and lower lr0.", False
    ),
    FailureCode.OUT_OF_MEMORY: Policy(
        "The run does not fit into memory; lower batch or imgsz.", False, retries=2, backoff=3.0
    ),
    FailureCode.DISK_FULL: Policy(
        "The worker's disk is full; free space, then start the job again.", True, backoff=6.0
    ),
    FailureCode.CRASHED: Policy(
        "The training process ended without a word; its log has the last lines.", True
    ),
    FailureCode.KILLED: Policy(
        "Someone or something on the machine killed the training process; ask its operator.", True
    ),
    FailureCode.SEGFAULT: Policy(
        "A native library crashed under the run; its log has the last lines. Look at drivers and GPU.",
        True,
        retries=3,
    ),
    FailureCode.WORKER_LOST: Policy("The worker stopped answering; look at its machine and its log.", True),
    FailureCode.STALLED: Policy(
        "The run made no progress for too long and was ended; look at its disk, its GPU and its log.",
        True,
        retries=2,
    ),
    FailureCode.TIMED_OUT: Policy(
        "The run took longer than its maximum runtime; allow it more, or train fewer epochs.", False
    ),
    FailureCode.STORAGE_ERROR: Policy(
        "A file of the run could not be stored or read; see the worker's log.", True
    ),
    FailureCode.SERVICE_ERROR: Policy(
        "The service failed, not your data; try again, or ask its operator.", True
    ),
    FailureCode.INTERNAL: Policy("A fault in the trainer; please report it with the job's log.", True),
}


@dataclass(frozen=True)
class Failure:
    """One failure: a code of the closed list, words, where the cause lies, and what was found there."""

    code: FailureCode
    message: str
    place: str | None = None
    value: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def hint(self) -> str:
        """What the user can do about it."""
        return POLICIES[self.code].hint

    @property
    def policy(self) -> Policy:
        """How failures of this cause are treated."""
        return POLICIES[self.code]

    @property
    def retried(self) -> bool:
        """Whether another attempt may end otherwise.

        Memory that ran out before the first batch was done will run out again; evidence with a `batches_done`
        above zero says that it did not.
        """
        if self.code is FailureCode.OUT_OF_MEMORY:
            return int(self.evidence.get("batches_done", 0)) > 0
        return POLICIES[self.code].retried

    def as_json(self) -> dict[str, Any]:
        """Return what the book keeps, hint included."""
        return {
            "code": self.code.value,
            "message": self.message,
            "hint": self.hint,
            "place": self.place,
            "value": self.value,
            "evidence": dict(self.evidence),
        }


def parse_code(text: str | None) -> FailureCode:
    """Return the code of this name; INTERNAL for anything that is not in the list."""
    try:
        return FailureCode(text or "")
    except ValueError:
        return FailureCode.INTERNAL
