"""One Redis connection, held by hand, so that a new connection is always noticed.

A pool would reconnect behind the caller's back, to a server that may have lost its last second of writes.
It must not know streams or jobs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis

Command = tuple[str | bytes | int, ...]


class WireDownError(Exception):
    """The server is away, or answers that it cannot serve now; the connection is gone."""


class Wire:
    """A connection that never reconnects; after WireDownError make a new one.

    `timeout_s` bounds connecting and each answer.
    """

    def __init__(self, url: str, *, timeout_s: float = 3.0) -> None:
        self._connection = _connection(url, timeout_s)
        try:
            self._connection.connect()
        except (redis.RedisError, OSError) as error:
            raise WireDownError(str(error)) from error

    def call(self, commands: Sequence[Command]) -> list[Any]:
        """Send `commands` at once and return their answers; a refused command answers with its error."""
        connection = self._connection
        answers: list[Any] = []
        try:
            connection.send_packed_command(connection.pack_commands(commands))
            for _ in commands:
                try:
                    answers.append(connection.read_response())
                except redis.ResponseError as refusal:
                    answers.append(refusal)
        except (redis.RedisError, OSError) as error:
            self.close()
            raise WireDownError(str(error)) from error
        return answers

    def transaction(self, commands: Sequence[Command]) -> list[Any]:
        """Send `commands` as one atomic unit and return their answers.

        Raise WireDownError if the server refuses the unit as a whole (out of memory, loading, read only).
        """
        answer = self.call([("MULTI",), *commands, ("EXEC",)])[-1]
        if not isinstance(answer, list):
            self.close()
            raise WireDownError(str(answer))
        return answer

    def close(self) -> None:
        """Drop the connection."""
        self._connection.disconnect()


def _connection(url: str, timeout_s: float) -> Any:
    # RESP2: the shape of answers does not depend on the server's version.
    pool = redis.ConnectionPool.from_url(
        url, protocol=2, decode_responses=True, socket_timeout=timeout_s, socket_connect_timeout=timeout_s
    )
    # Any: redis-py leaves the methods of a connection untyped.
    return pool.make_connection()
