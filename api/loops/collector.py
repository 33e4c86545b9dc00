"""Removes what has expired: idempotency keys, dead tokens, silent workers, files that never arrived whole."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from api.domain import tables as t
from api.domain.blobs import BlobStore
from api.domain.clock import SYSTEM_CLOCK, Clock
from api.domain.settings import DAY, Settings
from api.domain.store import Store
from api.loops.singleton import Singleton

KEEP_TOKENS_S = 7 * DAY
KEEP_WORKERS_S = DAY
KEEP_PARTS_S = DAY


class Collector:
    """Sweeps once a tick."""

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

    def tick(self) -> None:
        """Remove expired rows and files; raises StoreUnavailable."""
        if not self._singleton.hold():
            return
        now = self._clock.wall()
        self._store.write(lambda conn: self._sweep(conn, now))
        self._blobs.drop_stale_parts(older_than=now - KEEP_PARTS_S)

    def close(self) -> None:
        """Give the name back."""
        self._singleton.release()

    def _sweep(self, conn: Connection, now: float) -> None:
        keys, tokens, workers = t.idempotency_keys, t.api_tokens, t.workers
        conn.execute(sa.delete(keys).where(keys.c.created_at < now - self._settings.idempotency_keep_s))
        dead_since = now - KEEP_TOKENS_S
        dead = sa.or_(tokens.c.expires_at < dead_since, tokens.c.revoked_at < dead_since)
        conn.execute(sa.delete(tokens).where(dead))
        conn.execute(sa.delete(workers).where(workers.c.seen_at < now - KEEP_WORKERS_S))
