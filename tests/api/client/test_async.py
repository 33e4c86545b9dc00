"""The client for asyncio: the same methods with the same answers, errors and patience as the blocking one."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import re
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from api.client import AsyncClient, Client, NotAllowedError, NotEndedError, UnreachableError
from api.client.errors import IntegrityError
from api.client.follow import follow_async
from tests.api.client.fake_service import BROKEN, TOKEN, WEIGHTS, FakeService, event_text, running
from tests.support.shared import ROOT

Use = Callable[[AsyncClient], Coroutine[Any, Any, Any]]


def use(service: FakeService, does: Use, token: str = TOKEN) -> Any:
    """Run something with a client of a service, in a loop of its own."""

    async def run(url: str) -> Any:
        async with AsyncClient(url, token) as client:
            return await asyncio.wait_for(does(client), 20)

    with running(service) as url:
        return asyncio.run(run(url))


def test_it_has_the_methods_of_the_blocking_one_with_their_parameters() -> None:
    blocking, awaited = Client("http://127.0.0.1", None), AsyncClient("http://127.0.0.1", None)
    names = [name for name in dir(Client) if not name.startswith("_") and name != "url"]
    assert len(names) > 40 and names == [name for name in dir(AsyncClient) if not name.startswith("_")]
    for name in set(names) - {"close", "stream", "carry_out", "items"}:
        one, other = getattr(blocking, name), getattr(awaited, name)
        assert inspect.signature(one).parameters == inspect.signature(other).parameters, name
        assert one.__doc__ == other.__doc__ and one.__doc__, name
    blocking.close()


def test_requests_lists_and_errors() -> None:
    service = FakeService()

    async def does(client: AsyncClient) -> None:
        job = await client.submit({"dataset": "ds_1", "architecture": "arch_1"}, idempotency_key="k")
        assert job.id == "job_1"
        assert [item.id async for item in client.jobs()] == ["job_0", "job_1"]
        assert [worker.id for worker in await client.workers()] == ["h/train.g1/0"]
        assert (await client.edit("job_1", {"priority": 5}, revision=7)).priority == 5
        service.failing["/v1/jobs/job_1"] = [BROKEN, 503, 503]
        ended = await client.wait_for_job("job_1", timeout_s=15)
        assert ended.status == "succeeded"
        service.final = service.final | {"status": "running"}
        with pytest.raises(NotEndedError) as caught:
            await client.wait_for_job("job_1", timeout_s=0)
        assert caught.value.job is not None and caught.value.job.status == "running"

    use(service, does)
    assert service.asked("POST", "/v1/jobs")[0][0]["idempotency-key"] == "k"
    with pytest.raises(NotAllowedError):
        use(service, lambda client: client.job("job_1"), token="ts_wrong")
    service.final = {"no": "job"}
    with pytest.raises(UnreachableError, match="does not answer like this service"):
        use(service, lambda client: client.job("job_1"))


def test_files_go_up_and_come_down_checked(tmp_path: Path) -> None:
    service, seen = FakeService(), list[tuple[int, int]]()
    archive = tmp_path / "a.zip"
    archive.write_bytes(b"x" * 600_000)

    async def does(client: AsyncClient) -> None:
        made = await client.push_dataset(archive, "cells", lambda done, total: seen.append((done, total)))
        assert made.status == "ingesting"
        (artifact,) = await client.artifacts("job_1")
        path = await client.download("job_1", artifact, tmp_path / "best.pt")
        assert hashlib.sha256(path.read_bytes()).hexdigest() == hashlib.sha256(WEIGHTS).hexdigest()
        with pytest.raises(IntegrityError):
            wrong = artifact.model_copy(update={"sha256": "0" * 64})
            await client.download("job_1", wrong, tmp_path / "wrong.pt")

    use(service, does)
    assert service.asked("PUT", "/v1/datasets")[0][1] == archive.read_bytes()
    assert seen[-1] == (600_000, 600_000) and len(seen) > 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "best.pt"]


def test_events_are_followed_across_lost_connections() -> None:
    service = FakeService()
    service.streams = [
        [event_text("job", {}), event_text("batch", {"n": 1}, "1-1")],
        [
            event_text("batch", {"n": 2}, "1-2"),
            event_text("lagged", {}),
            event_text("batch", {"n": 9}, "1-9"),
        ],
        [b": ping\n\n", event_text("end", {})],
    ]

    async def does(client: AsyncClient) -> list[tuple[str, str | None]]:
        return [(event.type, event.id) async for event in follow_async(client, "job_1")]

    seen = use(service, does)
    assert seen == [("job", None), ("batch", "1-1"), ("batch", "1-2"), ("end", None)]
    asked = [headers.get("last-event-id") for headers, _ in service.asked("GET", "/v1/jobs/job_1/events")]
    assert asked == [None, "1-1", "1-2"]


def test_a_silent_stream_ends_at_the_deadline_and_leaves_the_loop_free() -> None:
    service, ticks = FakeService(), list[float]()
    service.streams = [[event_text("job", {}), b"hang"]]

    async def tick() -> None:
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0.02)

    async def does(client: AsyncClient) -> None:
        ticking = asyncio.create_task(tick())
        with pytest.raises(NotEndedError):
            async for _ in follow_async(client, "job_1", deadline=time.monotonic() + 0.6):
                pass
        service.wait_for_stop.set()
        ticking.cancel()

    use(service, does)
    assert len(ticks) > 5


def test_the_documented_program_runs() -> None:
    document = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(.*?)^```", document, re.DOTALL | re.MULTILINE)
    service = FakeService()
    service.streams = [[event_text("job", {}), event_text("end", {})]]
    with running(service) as url:
        for shown, real in (("https://train.example", url), ("ts_…", TOKEN), ("job_…", "job_1")):
            assert program.count(f'"{shown}"') == 1
            program = program.replace(shown, real)
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("job {}\nend {}\n") and "succeeded" in done.stdout
