"""Keep a claim alive: a heartbeat thread that brings back wishes, and the news that the claim is lost.

The same for jobs and tasks. It must not know what is claimed, nor what is done about wish or loss.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

import structlog

from api.domain.errors import Fenced, StoreUnavailable
from api.domain.records import Wish

_LOG = structlog.get_logger(__name__)


class LeaseKeeper:
    """Calls `renew` every `period_s`, or sooner when nudged, until stopped or fenced.

    A database that is away is no loss: only an answer that the claim is gone sets `fenced`.
    """

    def __init__(self, renew: Callable[[], Wish | None], *, period_s: float) -> None:
        self._renew = renew
        self._period_s = period_s
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._num_beats = 0
        self._answered_at = -math.inf
        self.wish: Wish | None = None
        self.fenced = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin with a heartbeat at once."""
        self._thread.start()

    def stop(self) -> None:
        """End after the heartbeat that may be under way."""
        self._stopped.set()
        self._wake.set()
        self._thread.join()

    def num_beats(self) -> int:
        """Return how many heartbeats have succeeded."""
        return self._num_beats

    def answered_s_ago(self) -> float:
        """Return how long ago the last heartbeat that succeeded was sent; infinity before there is one.

        The clock runs on while this process is stopped: a claim older than its lease may be another's.
        """
        return time.monotonic() - self._answered_at

    def nudge(self) -> None:
        """Ask for a heartbeat now."""
        self._wake.set()

    def _run(self) -> None:
        try:
            while not self._stopped.is_set() and self._beat():
                if not self._stopped.is_set():
                    self._wake.wait(self._period_s)
        finally:
            # However it ended before it was told to: the claim is not renewed any more.
            if not self._stopped.is_set():
                self.fenced.set()

    def _beat(self) -> bool:
        # Before the heartbeat: a nudge during it asks for one more.
        self._wake.clear()
        sent_at = time.monotonic()
        try:
            self.wish = self._renew()
        except Fenced:
            return False
        except StoreUnavailable as error:
            _LOG.warning("database is away, the claim is kept as long as it lasts", error=error.message)
            return True
        self._answered_at = sent_at
        self._num_beats += 1
        return True
