"""Removes what has expired: idempotency keys, dead tokens, silent workers, and files nobody needs any more.

Files go in small steps, a few seconds of each tick, so that a large removal neither holds the loop's name too
long nor keeps the API from its work.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from api.domain import tables as t
from api.domain.blobs import BlobStore
from api.domain.clock import SYSTEM_CLOCK, Clock
from api.domain.settings import DAY, HOUR, Settings
from api.domain.store import Store
from api.loops.singleton import Singleton
from api.sweep import Freed, Sweeper, stale_uploads

log = logging.getLogger(__name__)

KEEP_TOKENS_S = 7 * DAY
KEEP_WORKERS_S = DAY
KEEP_PARTS_S = DAY
SWEEP_EVERY_S = 6 * HOUR


class Collector:
    """Sweeps rows once a tick, and files for a part of it."""

    def __init__(
        self,
        store: Store,
        blobs: BlobStore,
        singleton: Singleton,
        settings: Settings,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._singleton = singleton
        self._settings = settings
        self._clock = clock
        # Under the time after which another copy of the loop takes over.
        self._step_s = settings.singleton_s / 3
        self._sweep: Iterator[Freed | None] | None = None
        self._swept_at: float | None = None
        self._freed: Counter[str] = Counter()

    def tick(self) -> None:
        """Remove expired rows and files; raises StoreUnavailable."""
        if not self._singleton.hold():
            self._sweep = None
            return
        now = self._clock.wall()
        self._store.write(lambda conn: self._sweep_rows(conn, now))
        self._blobs.drop_stale_parts(older_than=now - KEEP_PARTS_S)
        for freed in stale_uploads(self._store, self._settings, self._clock):
            self._freed[freed.kind] += freed.size_bytes
        self._sweep_files()

    def close(self) -> None:
        """Give the name back."""
        self._singleton.release()

    def _sweep_files(self) -> None:
        """Go on with the pass over the files, or begin one when it is time, for a few seconds."""
        began = self._clock.monotonic()
        if self._sweep is None:
            if self._swept_at is not None and began - self._swept_at < SWEEP_EVERY_S:
                return
            self._sweep = Sweeper(self._store, self._blobs, self._settings, self._clock).run()
            self._swept_at = began
        sweep, self._sweep = self._sweep, None
        for freed in sweep:
            if freed is not None:
                self._freed[freed.kind] += freed.size_bytes
            if self._clock.monotonic() - began >= self._step_s:
                # Only now: a pass that was broken off by an error cannot go on.
                self._sweep = sweep
                return
        if self._freed:
            log.info("freed %s", ", ".join(f"{size} bytes ({kind})" for kind, size in self._freed.items()))
            self._freed.clear()

    def _sweep_rows(self, conn: Connection, now: float) -> None:
        keys, tokens, workers = t.idempotency_keys, t.api_tokens, t.workers
        conn.execute(sa.delete(keys).where(keys.c.created_at < now - self._settings.idempotency_keep_s))
        dead_since = now - KEEP_TOKENS_S
        dead = sa.or_(tokens.c.expires_at < dead_since, tokens.c.revoked_at < dead_since)
        conn.execute(sa.delete(tokens).where(dead))
        conn.execute(sa.delete(workers).where(workers.c.seen_at < now - KEEP_WORKERS_S))
