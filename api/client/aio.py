"""The client for asyncio: the same methods as the blocking one, awaited, and lists by `async for`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio.to_thread
import httpx

from api.client import plans
from api.client.base import Meeting, connection, reaching
from api.client.bound import Awaited, AwaitedPages
from api.client.driving import carry_out_async
from api.client.errors import error_of
from api.client.fetching import Download, artifact_path
from api.client.models import Artifact
from api.client.steps import CHUNK_BYTES, A, Pages, Plan, Progress

T = TypeVar("T")


class AsyncClient:
    """Talks to one service with one token; use it in an `async with` block. Raises as `Client`."""

    def __init__(
        self,
        url: str,
        token: str | None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        on_note: Callable[[str], None] | None = None,
    ) -> None:
        """`on_note` is told what a person should know, such as a service of another minor version."""
        self.url = url.rstrip("/")
        self._meeting = Meeting(self.url, on_note)
        self._http = httpx.AsyncClient(**connection(self.url, token), transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send one request and return its 2xx answer."""
        with reaching(self.url):
            response = await self._http.request(method, path, **options)
        self._meeting.look(response)
        if not response.is_success:
            raise error_of(response.status_code, response.content)
        return response

    @asynccontextmanager
    async def stream(self, path: str, **options: Any) -> AsyncIterator[httpx.Response]:
        """Open a GET whose 2xx body is read piece by piece."""
        with reaching(self.url):
            async with self._http.stream("GET", path, **options) as response:
                self._meeting.look(response)
                if not response.is_success:
                    raise error_of(response.status_code, await response.aread())
                yield response

    async def carry_out(self, plan: Plan[T]) -> T:
        """Carry out what a method is made of."""
        return await carry_out_async(plan, self.request)

    async def items(self, pages: Pages[A]) -> AsyncIterator[A]:
        """Yield the items of a list, page by page."""
        while pages.has_more:
            for item in await self.carry_out(pages.next_page()):
                yield item

    push_dataset = Awaited(plans.push_dataset)
    confirm_dataset = Awaited(plans.confirm_dataset)
    retry_dataset = Awaited(plans.retry_dataset)
    dataset = Awaited(plans.dataset)
    datasets = AwaitedPages(plans.datasets)
    delete_dataset = Awaited(plans.delete_dataset)
    wait_for_dataset = Awaited(plans.wait_for_dataset)
    dataset_problems = Awaited(plans.dataset_problems)
    diff_datasets = Awaited(plans.diff_datasets)

    push_architecture = Awaited(plans.push_architecture)
    public_architectures = Awaited(plans.public_architectures)
    check_architecture = Awaited(plans.check_architecture)
    diff_architectures = Awaited(plans.diff_architectures)

    submit = Awaited(plans.submit)
    submission = Awaited(plans.submission)
    check_job = Awaited(plans.check_job)
    probe_job = Awaited(plans.probe_job)
    probe = Awaited(plans.probe)
    cancel_probe = Awaited(plans.cancel_probe)
    rerun = Awaited(plans.rerun)
    job = Awaited(plans.job)
    jobs = AwaitedPages(plans.jobs)
    cancel = Awaited(plans.cancel)
    stop = Awaited(plans.stop)
    pause = Awaited(plans.pause)
    activate = Awaited(plans.activate)
    edit = Awaited(plans.edit)
    delete_job = Awaited(plans.delete_job)
    attempts = Awaited(plans.attempts)
    wait_for_job = Awaited(plans.wait_for_job)
    metrics = Awaited(plans.metrics)
    artifacts = Awaited(plans.artifacts)

    workers = Awaited(plans.workers)
    queues = Awaited(plans.queues)
    clear_worker = Awaited(plans.clear_worker)

    push_weights = Awaited(plans.push_weights)
    weights = Awaited(plans.weights)
    all_weights = AwaitedPages(plans.all_weights)
    delete_weights = Awaited(plans.delete_weights)
    weights_fit = Awaited(plans.weights_fit)
    wait_for_weights = Awaited(plans.wait_for_weights)

    async def download(
        self, job_id: str, artifact: Artifact, target: Path, progress: Progress | None = None
    ) -> Path:
        """Fetch one artifact to `target`, checked against its SHA-256, appearing there by rename.

        Raises IntegrityError when other bytes arrive than were announced.
        """
        async with self.stream(artifact_path(job_id, artifact)) as response:
            with Download(artifact, target, progress) as file:
                async for chunk in response.aiter_bytes(CHUNK_BYTES):
                    await anyio.to_thread.run_sync(file.write, chunk)
        return target
