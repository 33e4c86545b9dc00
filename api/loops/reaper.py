"""Takes back claims whose worker stopped renewing them, judged by this process's own monotonic clock.

It remembers when it first saw each claim at its present number. Whatever casts doubt on its own view (a tick
that could not renew its name, that was slow to, or that came late) makes it forget everything, so that a
paused or cut-off reaper never ends the run of a healthy worker.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from api.domain.clock import SYSTEM_CLOCK, Clock
from api.domain.errors import StoreUnavailable
from api.domain.leasing import Held
from api.domain.settings import Settings
from api.loops.singleton import Singleton

log = logging.getLogger(__name__)


class LeasedBook(Protocol):
    """A book whose rows are claimed for a time."""

    def held(self) -> list[Held]:
        """Return every running claim."""
        ...

    def expire(self, seen: Held) -> object | None:
        """Take back a claim that did not move since it was seen."""
        ...


@dataclass(frozen=True)
class Watch:
    """What is remembered of claims: since when each has stood still, in monotonic seconds."""

    since: Mapping[Held, float]

    def look(self, held: Iterable[Held], now: float) -> Watch:
        """Return the memory after seeing these claims now: moved ones start anew, gone ones are forgotten."""
        return Watch({claim: self.since.get(claim, now) for claim in held})

    def stale(self, now: float, lease_s: float) -> list[Held]:
        """Return the claims that have stood still for a whole lease."""
        return [claim for claim, since in self.since.items() if now - since >= lease_s]


NOTHING = Watch({})


class Reaper:
    """Looks at the claims of some books once a tick."""

    def __init__(
        self,
        books: Mapping[str, LeasedBook],
        singleton: Singleton,
        settings: Settings,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._books = books
        self._singleton = singleton
        self._settings = settings
        self._clock = clock
        self._last_tick: float | None = None
        self._watches: dict[str, Watch] = {}

    def tick(self) -> None:
        """Look once, and take back what stood still for a whole lease; raises StoreUnavailable."""
        started = self._clock.monotonic()
        late = self._last_tick is not None and started - self._last_tick > self._settings.reaper_gap_s
        self._last_tick = started
        try:
            active = self._singleton.hold()
            slow = self._clock.monotonic() - started > self._settings.reaper_slow_tick_s
            if late or slow or not active:
                self._watches.clear()
            if active:
                self._look()
        except StoreUnavailable:
            self._watches.clear()
            raise

    def _look(self) -> None:
        for name, book in self._books.items():
            held = book.held()
            now = self._clock.monotonic()
            watch = self._watches.get(name, NOTHING).look(held, now)
            self._watches[name] = watch
            for claim in watch.stale(now, self._settings.lease_s):
                if book.expire(claim) is not None:
                    log.warning("took back %s from attempt %d: its worker is silent", claim.id, claim.attempt)

    def close(self) -> None:
        """Give the name back."""
        self._singleton.release()
