"""Which checkpoints may go once the resume pointer has moved: names in, names out, then the deleting.

The child only adds checkpoints. It must not know SQL; the caller promises that the pointer is committed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"e(\d+)-b(\d+)\.ckpt")


@dataclass(frozen=True, order=True)
class Saved:
    """A checkpoint of a job: it continues at `epoch`, `batch`; `path` is relative to the job's folder."""

    attempt: int
    epoch: int
    batch: int
    path: str


def doomed(saved: Iterable[Saved], *, pointed: str, best_epoch: int | None) -> list[Saved]:
    """Return the checkpoints that may go: not the pointed-to, the newest, or the best epoch's newest.

    The checkpoint of epoch e is the one that continues at e + 1, batch 0.
    """
    ordered = sorted(saved)
    kept = {pointed}
    if ordered:
        kept.add(ordered[-1].path)
    if best_epoch is not None:
        best = [one for one in ordered if (one.epoch, one.batch) == (best_epoch + 1, 0)]
        kept.update(one.path for one in best[-1:])
    return [one for one in ordered if one.path not in kept]


def saved_checkpoints(job_folder: Path) -> list[Saved]:
    """Return the complete checkpoints of all attempts; files in the making have other names."""
    found = []
    for path in job_folder.glob("attempts/*/checkpoints/*.ckpt"):
        match = _NAME.fullmatch(path.name)
        if match is not None:
            attempt = int(path.parent.parent.name)
            relative = path.relative_to(job_folder).as_posix()
            found.append(Saved(attempt, int(match[1]), int(match[2]), relative))
    return found


def prune(job_folder: Path, *, pointed: str, best_epoch: int | None) -> list[str]:
    """Delete what `doomed` names and return it."""
    gone = doomed(saved_checkpoints(job_folder), pointed=pointed, best_epoch=best_epoch)
    for one in gone:
        (job_folder / one.path).unlink(missing_ok=True)
    return [one.path for one in gone]
