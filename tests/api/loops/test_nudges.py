"""Both ends of the port for nudges, through the same tests; the Celery one over a real server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from api.domain import wire
from api.domain.queueing import celery_app, celery_config, open_redis, transport_options
from api.domain.settings import Settings
from api.loops.loop import QueueRefused, WireAway
from api.loops.nudges import CeleryNudges, MemoryNudges, Nudges
from tests.support.valkey import ValkeyProcess, running_valkey


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyProcess]:
    with running_valkey() as server:
        yield server


@pytest.fixture(params=["memory", "celery"])
def nudges(request: pytest.FixtureRequest) -> Iterator[Nudges]:
    if request.param == "memory":
        yield MemoryNudges()
        return
    server: ValkeyProcess = request.getfixturevalue("server")
    with closing(server.client()) as client:
        client.flushall()
    with closing(CeleryNudges(Settings(redis_url=server.url))) as nudges:
        yield nudges


def test_what_is_sent_waits(nudges: Nudges) -> None:
    assert nudges.waiting("train.cpu") == 0
    nudges.send("train.cpu", 2)
    nudges.send("ingest", 1)
    nudges.send("train.cpu", 1)
    assert (nudges.waiting("train.cpu"), nudges.waiting("ingest"), nudges.waiting("train.g1")) == (3, 1, 0)


def test_a_message_names_the_task_and_carries_nothing(server: ValkeyProcess) -> None:
    settings = Settings(redis_url=server.url)
    with closing(server.client()) as client:
        client.flushall()
        with closing(CeleryNudges(settings)) as nudges:
            nudges.send("train.cpu", 1)
            nudges.send("ingest", 1)
        keys = {key.decode() for key in client.keys("*")}
    assert {wire.queue_key("train.cpu"), wire.queue_key("ingest")} <= keys
    assert all(key.startswith(wire.PREFIX) for key in keys)
    with closing(celery_app(settings)) as app, app.connection_for_read() as connection:
        for queue, task in (("train.cpu", "trainshed.train"), ("ingest", "trainshed.ingest")):
            with closing(connection.SimpleQueue(queue)) as waiting:
                message = waiting.get(timeout=5)
                message.ack()
            assert message.headers["task"] == task
            assert message.payload[:2] == [[], {}]


def test_a_server_that_went_and_came_back() -> None:
    with running_valkey() as server:
        settings = Settings(redis_url=server.url, redis_timeout_s=1)
        with closing(CeleryNudges(settings)) as nudges:
            nudges.send("train.cpu", 1)
            server.kill()
            for call in (lambda: nudges.waiting("train.cpu"), lambda: nudges.send("train.cpu", 1)):
                with pytest.raises(WireAway):
                    call()
            server.start()
            before = nudges.waiting("train.cpu")
            nudges.send("train.cpu", 1)
            assert nudges.waiting("train.cpu") == before + 1


@pytest.mark.parametrize("queue", ["waiting", "sending"])
def test_what_is_no_queue_is_refused_and_the_server_is_not_away(server: ValkeyProcess, queue: str) -> None:
    with (
        closing(server.client()) as client,
        closing(CeleryNudges(Settings(redis_url=server.url))) as nudges,
    ):
        client.set(wire.queue_key(queue), b"no list")
        with pytest.raises(QueueRefused, match=queue):
            nudges.waiting(queue) if queue == "waiting" else nudges.send(queue, 1)
        nudges.send("train.cpu", 1)


def test_no_server_at_all(tmp_path: Path) -> None:
    with closing(CeleryNudges(Settings(redis_url=f"unix://{tmp_path}/none.sock"))) as nudges:
        with pytest.raises(WireAway):
            nudges.waiting("train.cpu")
        with pytest.raises(WireAway):
            nudges.send("train.cpu", 1)


def test_celery_is_told_to_carry_nudges_only() -> None:
    config = celery_config(Settings(redis_url="unix:///run/v.sock"))
    assert config["result_backend"] is None and config["task_ignore_result"]
    assert not config["task_acks_late"]
    assert config["accept_content"] == [config["task_serializer"]] == ["json"]
    assert (config["worker_pool"], config["worker_concurrency"]) == ("threads", 1)
    assert config["worker_prefetch_multiplier"] == 1 and config["worker_disable_prefetch"]
    assert config["broker_url"] == "redis+socket:///run/v.sock"
    assert "socket_keepalive" not in config["broker_transport_options"]
    assert transport_options(Settings())["socket_keepalive"]
    assert transport_options(Settings())["global_keyprefix"] == "trainshed:"


def test_open_redis_keeps_bytes(server: ValkeyProcess) -> None:
    with closing(open_redis(Settings(redis_url=server.url))) as client:
        client.set("trainshed:x", b"1")
        assert client.get("trainshed:x") == b"1"
