"""The API killed after it wrote a job down and before anybody was told: the job runs, and never twice.

The kill point needs no hook: Redis is behind a proxy that swallows everything, so that what the dispatcher
sends is still on its way when the process dies. In half of the cases the answer is lost as well.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from api.client.errors import UnreachableError
from api.domain import wire
from tests.chaos.sim_stack import SimStack
from tests.support.figures import record
from tests.support.members import until
from tests.support.proxy import FaultProxy
from tests.support.valkey import running_valkey

NUM_APIS = 3


def submit_and_kill(stack: SimStack, api: int, key: str, *, lose_answer: bool) -> str | None:
    """Submit a job, kill the API once the job is in the book; return the id if the client was told."""
    told = None
    before = len(stack.states())
    port = int(stack.members[f"api-{api}"].environment["TRAINSHED_PORT"])
    with FaultProxy(("127.0.0.1", port)) as line:
        if lose_answer:
            line.limit(0, of_server=True)
        with stack.client(url=line.http_url) as client:
            try:
                told = client.submit(stack.request(epochs=1), idempotency_key=key).id
            except UnreachableError:
                assert lose_answer
        until(lambda: len(stack.states()) == before + 1, "the job to be in the book")
        stack.members[f"api-{api}"].kill()
    return told


def retry(stack: SimStack, api: int, key: str) -> str:
    """Submit again under the same key and return the job's id."""
    with stack.client(api) as client:
        return client.submit(stack.request(epochs=1), idempotency_key=key).id


@pytest.mark.parametrize("lose_answer", [False, True], ids=["answered", "answer-lost"])
@pytest.mark.parametrize("kills", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_the_api_dies_between_the_book_and_the_nudge(tmp_path: Path, kills: int, lose_answer: bool) -> None:
    with running_valkey() as valkey, FaultProxy(valkey.socket) as proxy:
        through = {"redis_url": proxy.redis_url}
        stack = SimStack(tmp_path / "data", apis=NUM_APIS, valkey=valkey, of_role={"api": through})
        with stack, closing(valkey.client()) as server:
            stack.set_pace(batches=2, batch_s=0.0)
            proxy.blackhole()
            told: dict[str, str | None] = {}
            for number in range(kills):
                api, key = number % NUM_APIS, f"key-{number}"
                if number >= NUM_APIS:
                    stack.await_ready(f"api-{api}")
                told[key] = submit_and_kill(stack, api, key, lose_answer=lose_answer)
                # Ready again by the time its turn comes.
                stack.members[f"api-{api}"].start()
            assert not server.llen(wire.queue_key("train.cpu")), "a nudge got through"
            assert set(stack.states().values()) == {("queued", 0)}
            accepted = set(stack.states())
            for number in range(NUM_APIS):
                stack.await_ready(f"api-{number}")
            again = {key: retry(stack, number % NUM_APIS, key) for number, key in enumerate(told)}
            assert set(again.values()) == accepted == set(stack.states())
            assert all(job in (None, again[key]) for key, job in told.items())
            # What dead processes sent stays lost: the living ones must think of it themselves.
            proxy.reset()
            proxy.heal()
            with stack.client() as client:
                jobs = [client.job(job) for job in sorted(accepted)]
            took = stack.await_all(jobs, timeout_s=120)
            record(
                f"API killed {kills} times before the nudge: all jobs ended, after Redis is back", took, "s"
            )
            assert stack.assert_all_whole(jobs) == [1] * kills
