"""Gives the streams of ended jobs their last hours, where no worker was there to do it.

A worker shortens the life of a stream when its attempt ends a job. A job that ended while it waited, or by
the reaper's hand, had no worker any more. Several copies of this loop do no harm: each sets what is so.
"""

from __future__ import annotations

from collections.abc import Sequence

import redis

from api.domain import wire
from api.domain.clock import SYSTEM_CLOCK, Clock
from api.domain.retention import RetentionBook
from api.domain.settings import Settings
from api.loops.loop import WireAway

# Clocks of several machines may differ by less than this.
_OVERLAP_S = 60.0
_AT_ONCE = 500


class StreamCloser:
    """Looks at what ended since it last looked."""

    def __init__(
        self, book: RetentionBook, server: redis.Redis, settings: Settings, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._book = book
        self._server = server
        self._final_s = int(settings.stream_ttl_final_s)
        self._clock = clock
        # Before that no stream can be left.
        self._since = clock.wall() - settings.stream_ttl_running_s

    def tick(self) -> None:
        """Shorten what lives too long; raises StoreUnavailable or WireAway, and looks again then."""
        began = self._clock.wall()
        ended = self._book.ended_since(self._since)
        try:
            for start in range(0, len(ended), _AT_ONCE):
                self._shorten([wire.events_key(job_id) for job_id in ended[start : start + _AT_ONCE]])
        except redis.RedisError as error:
            raise WireAway(f"Redis does not answer: {error}") from error
        self._since = began - _OVERLAP_S

    def close(self) -> None:
        """Close the connection."""
        self._server.close()

    def _shorten(self, keys: Sequence[str]) -> None:
        asking = self._server.pipeline(transaction=False)
        for key in keys:
            asking.ttl(key)
        telling = self._server.pipeline(transaction=False)
        for key, left_s in zip(keys, asking.execute(), strict=True):
            # -2 says that there is none, -1 that it would live for ever.
            if left_s == -1 or left_s > self._final_s:
                telling.expire(key, self._final_s)
        telling.execute()
