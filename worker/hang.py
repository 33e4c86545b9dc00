"""Watch one run for a hang: read its journal beside whoever ships it, and gather what can be seen.

Rows and stream wait for databases and Redis that are away; this must not, and so reads for itself. It must
not know what is done about a hang.
"""

from __future__ import annotations

import time
from typing import Any

from api.domain.failures import Failure, FailureCode
from api.domain.settings import Settings
from worker.attempt import AttemptFolder
from worker.child import Child, tail_text
from worker.journal import DamagedJournalError, Journal
from worker.watchdog import Watchdog

_LOOK_S = 0.2
# For a child that writes its stacks when asked.
_STACKS_S = 0.5
_EVIDENCE_BYTES = 8000


class Vigil:
    """Follows the journal of one attempt for signs of progress."""

    def __init__(self, folder: AttemptFolder, journal: Journal, settings: Settings) -> None:
        self._folder = folder
        self._journal = journal
        self._seen = 0
        self._looked_at = now = time.monotonic()
        self._watchdog = Watchdog(stall_s=settings.stall_s, stall_phase_s=settings.stall_phase_s, now=now)

    def hangs(self) -> bool:
        """Look at what was added, now and then; tell whether there was no progress for too long."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_S:
            return False
        self._looked_at = now
        try:
            events = self._journal.read(self._seen + 1)
        except (DamagedJournalError, OSError):
            # Who ships the rows meets the same and ends the run for it.
            return False
        self._seen += len(events)
        return self._watchdog.look(events, now)

    def failure(self, child: Child) -> Failure:
        """Return what can be seen of a run that hangs, with its stacks where its program writes them."""
        dog = self._watchdog
        found: dict[str, Any] = {"phase": dog.phase, "silent_s": round(dog.silent_s, 1)}
        found |= {"last_seq": self._seen, **child.describe()}
        if child.dump_stacks():
            child.wait(_STACKS_S)
        found["log"] = tail_text(self._folder.log, max_bytes=_EVIDENCE_BYTES)
        message = f"no progress for {dog.silent_s:.0f} s in phase {dog.phase or 'preparing'}"
        return Failure(FailureCode.STALLED, message, evidence=found)
