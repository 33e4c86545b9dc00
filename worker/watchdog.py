"""Tell a run that hangs from one that is slow: how long its journal has said nothing that is progress.

Pure: events and times in, a verdict out. It must not know processes, files nor what is done about a hang.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# Load figures come from a thread of their own and go on while the run hangs.
_NO_PROGRESS = frozenset(("system",))
TRAINING = "training"


class Watchdog:
    """Counts the silence of one run.

    `stall_s` bounds it while batches are trained, `stall_phase_s` in every other phase. A gap between two
    looks counts for at most `max_gap_s`: a machine that slept did not see its run hang.
    """

    def __init__(self, *, stall_s: float, stall_phase_s: float, now: float, max_gap_s: float = 5.0) -> None:
        self._stall_s = stall_s
        self._stall_phase_s = stall_phase_s
        self._max_gap_s = max_gap_s
        self._looked_at = now
        self.silent_s = 0.0
        self.phase: str | None = None

    @property
    def limit_s(self) -> float:
        """How long the run may say nothing in the phase it is in."""
        return self._stall_s if self.phase == TRAINING else self._stall_phase_s

    def look(self, events: Iterable[Mapping[str, Any]], now: float) -> bool:
        """Take the journal's new events, at a monotonic time in seconds; tell whether the run hangs."""
        self.silent_s += min(max(0.0, now - self._looked_at), self._max_gap_s)
        self._looked_at = now
        for event in events:
            if event["type"] in _NO_PROGRESS:
                continue
            self.silent_s = 0.0
            if event["type"] == "phase":
                self.phase = event["phase"]
            elif event["type"] == "batch":
                # After a validation the next epoch may begin without saying so.
                self.phase = TRAINING
        return self.silent_s >= self.limit_s


class RunClock:
    """How long a job may still run: its limit over all attempts, what earlier ones took, and this one."""

    def __init__(self, limit_s: float | None, *, ran_s: float, now: float) -> None:
        self.limit_s = limit_s
        self._ends_at = None if limit_s is None else now + limit_s - ran_s

    def is_over(self, now: float) -> bool:
        """Tell whether the limit is reached at this monotonic time in seconds."""
        return self._ends_at is not None and now >= self._ends_at
