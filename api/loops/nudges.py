"""Messages that say "look into the book": how many wait in a queue, and one more of them.

A port with two kinds of end: Celery over Redis, and a dictionary for tests. Raises WireAway where Redis
does not answer, QueueRefused where it answers with an error, nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from api.domain import wire
from api.domain.queueing import celery_app, open_redis, transport_options
from api.domain.settings import Settings
from api.loops.loop import QueueRefused, WireAway

# A server that is away is the next tick's business: kombu alone would go on for six seconds.
ONE_TRY: Final = {"max_retries": 0, "interval_start": 0.0, "interval_step": 0.1, "interval_max": 0.1}


class Nudges(Protocol):
    """Where nudges wait."""

    def waiting(self, queue: str) -> int:
        """Return how many wait in a queue; raises WireAway, QueueRefused."""
        ...

    def send(self, queue: str, count: int) -> None:
        """Put more into a queue; raises WireAway, QueueRefused, after which some may have been sent."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


class MemoryNudges:
    """Nudges in a dictionary; `away` makes it play dead, `broken` names queues it refuses."""

    def __init__(self) -> None:
        self.queues: Counter[str] = Counter()
        self.away = False
        self.broken: set[str] = set()

    def waiting(self, queue: str) -> int:
        """Return how many wait in a queue."""
        self._answer(queue)
        return self.queues[queue]

    def send(self, queue: str, count: int) -> None:
        """Put more into a queue."""
        self._answer(queue)
        self.queues[queue] += count

    def close(self) -> None:
        """Do nothing."""

    def _answer(self, queue: str) -> None:
        if self.away:
            raise WireAway("the memory queue plays dead")
        if queue in self.broken:
            raise QueueRefused(f"the queue {queue} is refused")


class CeleryNudges:
    """Nudges as Celery messages in Redis lists."""

    def __init__(self, settings: Settings) -> None:
        self._app = celery_app(settings)
        self._app.conf.broker_transport_options = {**transport_options(settings), **ONE_TRY}
        self._redis = open_redis(settings)

    def waiting(self, queue: str) -> int:
        """Return the length of a queue's list."""
        with _answering(queue):
            return int(self._redis.llen(wire.queue_key(queue)))

    def send(self, queue: str, count: int) -> None:
        """Publish messages over one connection opened for the purpose: a kept one may be stale."""
        with _answering(queue), self._app.connection_for_write() as connection:
            for _ in range(count):
                self._app.send_task(
                    wire.queue_task(queue),
                    queue=queue,
                    connection=connection,
                    retry=False,
                )

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()
        self._app.close()


@contextmanager
def _answering(queue: str) -> Iterator[None]:
    from kombu.exceptions import OperationalError
    from redis.exceptions import ConnectionError as NoConnection
    from redis.exceptions import RedisError
    from redis.exceptions import TimeoutError as TooSlow

    try:
        yield
    except (NoConnection, TooSlow, OperationalError, OSError) as error:
        # Celery's library wraps refusals and lost connections alike.
        if isinstance(error.__cause__, RedisError) and not isinstance(
            error.__cause__, NoConnection | TooSlow
        ):
            raise _refused(queue, error) from error
        raise WireAway(f"Redis does not answer: {error}") from error
    except RedisError as error:
        raise _refused(queue, error) from error


def _refused(queue: str, error: Exception) -> QueueRefused:
    return QueueRefused(f"Redis refuses the queue {queue}: {error}")
