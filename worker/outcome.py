"""What the end of a child means for its job: a pure table from exit code, result file and wish.

It must not touch processes, files or SQL; the supervisor brings the facts and carries out the verdict.
"""

from __future__ import annotations

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


@dataclass(frozen=True)
class Exit:
    """How a child ended: `code` as subprocess reports it, `result` as it wrote it, `asked` what we wanted."""

    code: int
    result: Mapping[str, Any] | None
    asked: Wish | None = None
    has_best: bool = False
    log_tail: str = ""


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
    """Return the verdict on an exit; a finish that beat the wish stands."""
    outcome = end.result.get("outcome") if end.result is not None else None
    if end.result is None:
        return _without_result(end)
    if outcome == "succeeded" and end.code == 0:
        return Verdict("succeed")
    if outcome == "stopped" and end.code in (0, EXIT_STOPPED) and end.result.get("kind") in WISH_ORDER:
        return _after_wish(end.result["kind"], has_best=end.has_best)
    if outcome == "failed":
        return Verdict("fail", _reported(end.code, end.result))
    return _without_result(end)


def _after_wish(wish: Wish, *, has_best: bool) -> Verdict:
    if wish == "cancel":
        return Verdict("cancel")
    if wish == "pause":
        return Verdict("pause")
    if wish == "drain":
        return Verdict("requeue")
    return Verdict("succeed") if has_best else Verdict("cancel")


def _reported(exit_code: int, result: Mapping[str, Any]) -> Failure:
    told = str(result.get("code") or "")
    evidence = dict(result.get("evidence") or {})
    if told in FailureCode.__members__:
        code = FailureCode(told)
    else:
        # A finer code than the book's: the exit code says whose fault it is.
        code = _CODE_BY_EXIT.get(exit_code, FailureCode.INTERNAL)
        if told:
            evidence["cause"] = told
    message = str(result.get("message") or "the run failed without saying why")
    return Failure(
        code, message, place=_text(result.get("place")), value=_text(result.get("value")), evidence=evidence
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _without_result(end: Exit) -> Verdict:
    if end.asked is not None:
        return _after_wish(end.asked, has_best=end.has_best)
    evidence: dict[str, Any] = {"exit": end.code}
    if end.log_tail:
        evidence["log"] = end.log_tail
    if end.code < 0:
        message = f"the training process was killed by signal {-end.code}"
    else:
        message = f"the training process ended with exit code {end.code} and no result"
    code = _CODE_BY_EXIT.get(end.code, FailureCode.CRASHED)
    return Verdict("fail", Failure(code, message, evidence=evidence))
