"""How long, and how slowly, a service that does not answer is asked again.

A service that restarts is away for a moment, and a pipeline that waits for hours must outlast that. It knows
errors and clocks, and nothing of what is asked for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from api.client.errors import ApiError, UnreachableError

GIVE_UP_S = 120.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0
_TOO_MANY, _SERVER_ERRORS = 429, 500


class Patience:
    """Lasts `give_up_s` seconds after the service was last heard, with growing pauses between attempts."""

    def __init__(self, give_up_s: float = GIVE_UP_S) -> None:
        self._give_up_s = give_up_s
        self.renew()

    def renew(self) -> None:
        """Note that the service is there."""
        self._alive_at = time.monotonic()
        self._pause_s = _FIRST_PAUSE_S

    @property
    def is_over(self) -> bool:
        """Whether the service has been away for too long."""
        return time.monotonic() - self._alive_at > self._give_up_s

    @contextmanager
    def with_failures(self) -> Iterator[None]:
        """Let pass what may be better at the next attempt, until the patience is over."""
        try:
            yield
        except ApiError as error:
            if self.is_over or (error.status < _SERVER_ERRORS and error.status != _TOO_MANY):
                raise
        except UnreachableError:
            if self.is_over:
                raise

    def next_pause_s(self, deadline: float | None = None) -> float:
        """Return how long to wait before the next attempt, not beyond `deadline` (of `time.monotonic`)."""
        pause_s = self._pause_s if deadline is None else max(0.0, min(self._pause_s, time_left(deadline)))
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        return pause_s

    def pause(self, deadline: float | None = None) -> None:
        """Wait before the next attempt."""
        time.sleep(self.next_pause_s(deadline))


def deadline_in(timeout_s: float | None) -> float | None:
    """Return the moment (of `time.monotonic`) at which `timeout_s` seconds are over."""
    return None if timeout_s is None else time.monotonic() + timeout_s


def time_left(deadline: float | None) -> float:
    """Return the seconds until a deadline: negative behind it, infinite without one."""
    return float("inf") if deadline is None else deadline - time.monotonic()
