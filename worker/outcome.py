"""What the end of a child means for its job: a pure table from exit code, result file and wish.

It must not touch processes, files or SQL; the supervisor brings the facts and carries out the verdict.
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from api.domain.failures import Failure, FailureCode

Verb = Literal["succeed", "fail", "cancel", "pause", "requeue"]
Wish = Literal["cancel", "stop", "pause", "drain"]

# The stronger wish wins; draining is the machine's wish and yields to any of the user's.
WISH_ORDER: tuple[Wish, ...] = ("drain", "pause", "stop", "cancel")

EXIT_DATA = 65
EXIT_INTERNAL = 70
EXIT_OUT_OF_MEMORY = 71
EXIT_DISK_FULL = 74
EXIT_STOPPED = 75

_CODE_BY_EXIT: Mapping[int, FailureCode] = {
    EXIT_DATA: FailureCode.DATASET_INVALID,
    EXIT_INTERNAL: FailureCode.INTERNAL,
    EXIT_OUT_OF_MEMORY: FailureCode.OUT_OF_MEMORY,
    EXIT_DISK_FULL: FailureCode.DISK_FULL,
}
# The kernel sends these for what the process itself did.
_SEGFAULTS = frozenset((signal.SIGILL, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV))
_CRASHES = frozenset((signal.SIGABRT, signal.SIGTRAP, signal.SIGQUIT, signal.SIGSYS))
_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))


@dataclass(frozen=True)
class Exit:
    """How a child ended: `code` as subprocess reports it, `result` as it wrote it, `asked` what we wanted.

    `overruled` is why we ended it ourselves (a hang, its maximum runtime); `oom_killed` says that the kernel
    killed for memory in its group; `batches_done` counts this attempt's, and is at least 1 where it went on
    from a checkpoint.
    """

    code: int
    result: Mapping[str, Any] | None
    asked: Wish | None = None
    has_best: bool = False
    log_tail: str = ""
    overruled: Failure | None = None
    oom_killed: bool = False
    batches_done: int = 0


@dataclass(frozen=True)
class Verdict:
    """What becomes of the job; `failure` says why, exactly where the verb is `fail`."""

    verb: Verb
    failure: Failure | None = None


def stronger(first: Wish | None, second: Wish | None) -> Wish | None:
    """Return the wish that takes precedence: cancel over stop over pause over drain."""
    wishes = [wish for wish in (first, second) if wish is not None]
    return max(wishes, key=WISH_ORDER.index, default=None)


def judge(end: Exit) -> Verdict:
    """Return the verdict on an exit; a finish that beat the wish, or our own verdict, stands."""
    outcome = end.result.get("outcome") if end.result is not None else None
    if outcome == "succeeded" and end.code == 0:
        return Verdict("succeed")
    if end.overruled is not None:
        return Verdict("fail", end.overruled)
    if end.result is None:
        return _without_result(end)
    if outcome == "stopped" and end.code in (0, EXIT_STOPPED) and end.result.get("kind") in WISH_ORDER:
        return _after_wish(end.result["kind"], has_best=end.has_best)
    if outcome == "failed":
        return Verdict("fail", _reported(end, end.result))
    return _without_result(end)


def _after_wish(wish: Wish, *, has_best: bool) -> Verdict:
    if wish == "cancel":
        return Verdict("cancel")
    if wish == "pause":
        return Verdict("pause")
    if wish == "drain":
        return Verdict("requeue")
    return Verdict("succeed") if has_best else Verdict("cancel")


def _reported(end: Exit, result: Mapping[str, Any]) -> Failure:
    told = str(result.get("code") or "")
    evidence = dict(result.get("evidence") or {})
    if told in FailureCode.__members__:
        code = FailureCode(told)
    else:
        # A finer code than the book's: the exit code says whose fault it is.
        code = _CODE_BY_EXIT.get(end.code, FailureCode.INTERNAL)
        if told:
            evidence["cause"] = told
    if code is FailureCode.OUT_OF_MEMORY:
        # What fitted before may fit again: the child counts its own attempt only.
        evidence["batches_done"] = max(_count(evidence.get("batches_done")), end.batches_done)
    message = str(result.get("message") or "the run failed without saying why")
    return Failure(
        code, message, place=_text(result.get("place")), value=_text(result.get("value")), evidence=evidence
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _without_result(end: Exit) -> Verdict:
    # Whoever was to deliver its best and died has not: the book decides whether another attempt shall.
    owes_weights = end.asked == "stop" and end.has_best
    if end.asked is not None and not owes_weights:
        return _after_wish(end.asked, has_best=end.has_best)
    evidence: dict[str, Any] = {"exit": end.code}
    if end.log_tail:
        evidence["log"] = end.log_tail
    code = code_of_exit(end.code, oom_killed=end.oom_killed)
    if code is FailureCode.OUT_OF_MEMORY:
        evidence["batches_done"] = end.batches_done
    return Verdict("fail", Failure(code, _words(end, code), evidence=evidence))


def _words(end: Exit, code: FailureCode) -> str:
    if end.code >= 0:
        return f"the training process ended with exit code {end.code} and no result"
    if code is FailureCode.OUT_OF_MEMORY:
        return "the kernel killed the training process: its memory group was out of memory"
    return f"the training process was killed by signal {-end.code}"


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0


def code_of_exit(code: int, *, oom_killed: bool) -> FailureCode:
    """Return the failure that an exit without a word means: a code, or minus the signal that killed."""
    if code >= 0:
        return _CODE_BY_EXIT.get(code, FailureCode.CRASHED)
    if -code == signal.SIGKILL and oom_killed:
        return FailureCode.OUT_OF_MEMORY
    if -code in _SEGFAULTS:
        return FailureCode.SEGFAULT
    return FailureCode.CRASHED if -code in _CRASHES else FailureCode.KILLED


def storage_failure(what: str, error: Exception) -> Failure:
    """Return the failure that an error of the file system means; a full disk has a code of its own."""
    full = isinstance(error, OSError) and error.errno in _FULL
    return Failure(FailureCode.DISK_FULL if full else FailureCode.STORAGE_ERROR, f"{what}: {error}")
