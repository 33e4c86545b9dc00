"""PostgreSQL connections that bound the wait for each answer; imported only where that database is used.

A server that is gone without a word, behind a network that goes on acknowledging, would hold its callers for
ever. It must not know tables nor transactions.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg

_T = TypeVar("_T")
_LOOK_S = 0.1
_LEAST_CONNECT_S = 2  # libpq takes whole seconds, two at least


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that is closed, with an OperationalError, once an answer takes longer than `answer_s`."""

    answer_s = float("inf")

    def wait(
        self, gen: Generator[Any, Any, _T], interval: float = _LOOK_S, timeout: float | None = None
    ) -> _T:
        """Consume a generator of psycopg that waits for the server."""
        return super().wait(self._bounded(gen), interval, timeout)

    def _bounded(self, gen: Generator[Any, Any, _T]) -> Generator[Any, Any, _T]:
        until = time.monotonic() + self.answer_s
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() >= until:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"no answer from the server for {self.answer_s:g} s")
                wanted = gen.send(ready)
        except StopIteration as end:
            value: _T = end.value
            return value


def connect(*arguments: Any, answer_s: float, **options: Any) -> BoundedConnection:
    """Connect as psycopg does, with bounds on connecting and on each answer."""
    options.setdefault("connect_timeout", max(_LEAST_CONNECT_S, round(answer_s)))
    connection = BoundedConnection.connect(*arguments, **options)
    connection.answer_s = answer_s
    return connection
