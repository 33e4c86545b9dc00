"""A thread that does one thing again and again, ends when told, and outlives what goes wrong in it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from api.domain.errors import StoreUnavailable

log = logging.getLogger(__name__)


class LoopTrouble(Exception):  # noqa: N818
    """What a loop foresees: said once while it lasts, and tried again with the next tick."""


class WireAway(LoopTrouble):
    """Redis does not answer; what was to be sent will be sent by a later tick."""


class QueueRefused(LoopTrouble):
    """Redis answers, and refuses what was asked of one queue; the others are served."""


@dataclass(frozen=True)
class LoopState:
    """How a loop is doing: ticks done, ticks failed, and the last failure while it lasts."""

    ticks: int = 0
    failures: int = 0
    error: str | None = None


class Loop:
    """Calls `tick` every `period_s`, or at once after `kick`; `close` is called when it ends."""

    def __init__(
        self,
        name: str,
        tick: Callable[[], None],
        period_s: float,
        *,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.state = LoopState()
        self._tick = tick
        self._close = close
        self._period_s = period_s
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"loop-{name}", daemon=True)

    def start(self) -> None:
        """Start the thread; once."""
        self._thread.start()

    def kick(self) -> None:
        """Let the next tick begin now; returns at once."""
        self._wake.set()

    def ask_to_stop(self) -> None:
        """Let the loop end after the tick it is in; returns at once."""
        self._stopping.set()
        self._wake.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end; tells whether it came."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            # Cleared before the question, so that a wish to stop between the two still wakes the wait below.
            self._wake.clear()
            if self._stopping.is_set():
                break
            self.state = self._tick_once(self.state)
            self._wake.wait(self._period_s)
        try:
            self._close()
        except StoreUnavailable as error:
            log.warning("loop %s could not take its leave: %s", self.name, error)

    def _tick_once(self, before: LoopState) -> LoopState:
        try:
            self._tick()
        except (LoopTrouble, StoreUnavailable) as error:
            if before.error is None:
                log.warning("loop %s: %s; trying on", self.name, error)
            return LoopState(before.ticks + 1, before.failures + 1, str(error))
        except Exception as error:
            log.exception("loop %s failed", self.name)
            return LoopState(before.ticks + 1, before.failures + 1, repr(error))
        if before.error is not None:
            log.info("loop %s works again", self.name)
        return LoopState(before.ticks + 1, before.failures)
