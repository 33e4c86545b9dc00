"""The two event streams over HTTP: everything of one job, and the state of several.

Only sends frames; order and completeness are the watch's business.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Depends, Header, Query, Response

from api.access.principal import Caller
from api.domain.records import Principal
from api.domain.wire import EventId, WireError
from api.errors import UnprocessableError
from api.events.figures import Snapshot
from api.events.frames import Frame
from api.events.history import FIRST, History
from api.events.opening import history_of
from api.events.sending import FrameResponse
from api.events.stream import JobWatch, is_read_up, list_frames
from api.services import Service, Services

router = APIRouter(prefix="/v1", tags=["events"])

_MESSAGES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
}
_STREAM: dict[int | str, dict[str, Any]] = {
    **_MESSAGES,
    204: {"description": "The job is finished and was read to its end."},
}


class AlreadyReadError(Exception):
    """A watcher comes back to a finished job of which it has everything; the answer is a 204."""


def _last_id(
    last_event_id: Annotated[str | None, Header(description="Id of the last event that was read.")] = None,
    query: Annotated[
        str | None, Query(alias="last_event_id", description="The same, where no header can be set.")
    ] = None,
) -> EventId | None:
    text = last_event_id or query
    try:
        return EventId.parse(text) if text else None
    except WireError as error:
        place = {"pointer": "Last-Event-ID", "message": str(error), "value": str(text)[:200]}
        raise UnprocessableError("EVENT_ID_INVALID", "ids look like 1-57", errors=[place]) from error


@router.get("/jobs/{job_id}/events", response_class=Response, responses=_STREAM, summary="Follow a job")
async def job_events(
    job_id: str, caller: Caller, service: Service, last: Annotated[EventId | None, Depends(_last_id)]
) -> Response:
    """Send a snapshot, then every event from Last-Event-ID on without gaps, then `end`."""
    history, snapshot = await anyio.to_thread.run_sync(_look_up, service, caller, job_id)
    if last is not None and await is_read_up(history, snapshot, last):
        raise AlreadyReadError
    return FrameResponse(_followed(service, JobWatch(history, snapshot, last or FIRST), job_id))


def _look_up(service: Services, caller: Principal, job_id: str) -> tuple[History, Snapshot]:
    return history_of(service, caller, job_id), service.jobs.snapshot(caller, job_id)


@asynccontextmanager
async def _followed(service: Services, watch: JobWatch, job_id: str) -> AsyncIterator[AsyncIterator[Frame]]:
    ping_s = service.settings.sse_ping_s
    # Whatever changed since the snapshot was read is offered, too.
    async with (
        service.hub.subscribe([job_id]) as subscription,
        aclosing(watch.frames(subscription, ping_s=ping_s)) as frames,
    ):
        yield frames


@router.get(
    "/events", response_class=Response, responses=_MESSAGES, summary="Follow the state of several jobs"
)
async def list_events(
    caller: Caller,
    service: Service,
    job: Annotated[list[str], Query(min_length=1, max_length=100, description="Ids; repeat the parameter.")],
) -> Response:
    """Send the snapshots of these jobs, and again each whose state or figures change, at most once a second.

    While a job runs, its `progress` is as fresh as its event stream.
    """
    jobs = list(dict.fromkeys(job))
    snapshots = await anyio.to_thread.run_sync(_snapshots, service, caller, jobs)
    return FrameResponse(_listed(service, jobs, snapshots))


def _snapshots(service: Services, caller: Principal, jobs: Sequence[str]) -> list[dict[str, Any]]:
    return [service.jobs.snapshot(caller, job_id) for job_id in jobs]


@asynccontextmanager
async def _listed(
    service: Services, jobs: Sequence[str], snapshots: Sequence[Snapshot]
) -> AsyncIterator[AsyncIterator[Frame]]:
    async with service.hub.subscribe(jobs, live=False) as subscription:
        fresh = [service.hub.freshened(snapshot) for snapshot in snapshots]
        async with aclosing(list_frames(subscription, fresh, ping_s=service.settings.sse_ping_s)) as frames:
            yield frames
