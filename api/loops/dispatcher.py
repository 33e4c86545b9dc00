"""Keeps as many nudges waiting in each queue as there is work in the book that could be claimed.

Celery may lose or repeat a message as it likes: a lost one is missed here a second later and sent again, a
repeated one finds nothing to claim. Publishing never happens inside a request; `Loop.kick` brings it near.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from api.domain.jobs import JobBook
from api.domain.settings import Settings
from api.domain.tasks import TaskBook
from api.loops.nudges import Nudges
from api.loops.singleton import Singleton

log = logging.getLogger(__name__)


def missing(due: Mapping[str, int], waiting: Callable[[str], int], *, most: int) -> dict[str, int]:
    """Return how many nudges each queue lacks: one for each claimable row, but not over `most` waiting."""
    lacks = {queue: min(count, most) - waiting(queue) for queue, count in due.items()}
    return {queue: count for queue, count in lacks.items() if count > 0}


class Dispatcher:
    """Compares book and queues once a tick."""

    def __init__(
        self, books: Sequence[JobBook | TaskBook], nudges: Nudges, singleton: Singleton, settings: Settings
    ) -> None:
        self._books = books
        self._nudges = nudges
        self._singleton = singleton
        self._settings = settings

    def tick(self) -> None:
        """Send what is missing; raises WireAway and StoreUnavailable."""
        if not self._singleton.hold():
            return
        for book in self._books:
            lacking = missing(book.count_due(), self._nudges.waiting, most=self._settings.max_nudges)
            for queue, count in lacking.items():
                self._nudges.send(queue, count)
                log.debug("sent %d nudges to %s", count, queue)

    def close(self) -> None:
        """Give the name back and close the connections."""
        self._nudges.close()
        self._singleton.release()
