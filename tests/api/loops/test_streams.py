"""The streams of jobs that ended without a worker get their last hours; all others are left alone."""

from __future__ import annotations

import pytest
import redis

from api.domain import wire
from api.domain.retention import RetentionBook
from api.loops.loop import WireAway
from api.loops.streams import StreamCloser
from tests.api.domain.library import Library
from tests.support.valkey import running_valkey

DAY = 86400


def closer(library: Library, server: redis.Redis) -> StreamCloser:
    clock = library.clock.clock()
    return StreamCloser(
        RetentionBook(library.store, library.settings, clock), server, library.settings, clock
    )


def stream(server: redis.Redis, job_id: str, life_s: int | None) -> str:
    key = wire.events_key(job_id)
    server.xadd(key, {"data": "{}"}, id="1-1")
    if life_s is not None:
        server.expire(key, life_s)
    return key


def test_only_what_ended_and_lives_too_long_is_shortened(library: Library) -> None:
    waiting, dropped, endless, short, silent = (library.submit() for _ in range(5))
    with running_valkey() as valkey, valkey.client() as server:
        keys = {
            "waiting": stream(server, waiting.id, 7 * DAY),
            "dropped": stream(server, dropped.id, 7 * DAY),
            "endless": stream(server, endless.id, None),
            "short": stream(server, short.id, 100),
        }
        for job in (dropped, endless, short, silent):
            library.jobs.cancel(job.id)
        closer(library, server).tick()
        lives = {name: server.ttl(key) for name, key in keys.items()}
        assert 6 * DAY < lives["waiting"] <= 7 * DAY
        assert DAY - 60 < lives["dropped"] <= DAY and DAY - 60 < lives["endless"] <= DAY
        assert 0 < lives["short"] <= 100
        assert not server.exists(wire.events_key(silent.id))


def test_what_ended_while_redis_was_away_is_looked_at_again(library: Library) -> None:
    job = library.submit()
    with running_valkey() as valkey, valkey.client() as server:
        loop = closer(library, server)
        key = stream(server, job.id, 7 * DAY)
        loop.tick()
        library.clock.advance(1000.0)
        library.jobs.cancel(job.id)
        away = redis.Redis(unix_socket_path="/nowhere")
        loop._server = away
        with pytest.raises(WireAway):
            loop.tick()
        library.clock.advance(1000.0)
        loop._server = server
        loop.tick()
        assert server.ttl(key) <= DAY
