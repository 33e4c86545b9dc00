"""Keeps as many nudges waiting in each queue as there is work in the book that could be claimed.

Celery may lose or repeat a message as it likes: a lost one is missed here a second later and sent again, a
repeated one finds nothing to claim. Publishing never happens inside a request; `Loop.kick` brings it near.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from api.domain.jobs import JobBook
from api.domain.settings import Settings
from api.domain.tasks import TaskBook
from api.loops.loop import QueueRefused
from api.loops.nudges import Nudges
from api.loops.singleton import Singleton

log = logging.getLogger(__name__)


def missing(due: int, waiting: int, *, most: int) -> int:
    """Return how many nudges a queue lacks: one for each claimable row, but not over `most` waiting."""
    return max(0, min(due, most) - waiting)


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
        """Send what is missing; raises WireAway and StoreUnavailable.

        A queue that Redis refuses keeps no other waiting; QueueRefused names such queues afterwards.
        """
        if not self._singleton.hold():
            return
        refused: list[QueueRefused] = []
        for book in self._books:
            for queue, count in book.count_due().items():
                try:
                    self._top_up(queue, count)
                except QueueRefused as error:
                    refused.append(error)
        if refused:
            raise QueueRefused("; ".join(map(str, refused)))

    def _top_up(self, queue: str, due: int) -> None:
        lacks = missing(due, self._nudges.waiting(queue), most=self._settings.max_nudges)
        if lacks:
            self._nudges.send(queue, lacks)
            log.debug("sent %d nudges to %s", lacks, queue)

    def close(self) -> None:
        """Give the name back and close the connections."""
        self._nudges.close()
        self._singleton.release()
