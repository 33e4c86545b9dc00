"""Clocks as arguments, so that tests move time instead of waiting for it.

`wall` stamps rows for people and for `not_before`; `monotonic` is what leases are judged by. No decision
about ownership may rest on `wall`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Clock:
    """Two readings in seconds: since 1970 (UTC), and since some moment that never jumps."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic


SYSTEM_CLOCK = Clock()


@dataclass
class ManualClock:
    """A clock that stands still until told otherwise."""

    now: float = 1_000_000.0

    def advance(self, seconds: float) -> None:
        """Move both readings forward."""
        self.now += seconds

    def clock(self) -> Clock:
        """Return the `Clock` that reads this one."""
        return Clock(wall=lambda: self.now, monotonic=lambda: self.now)
