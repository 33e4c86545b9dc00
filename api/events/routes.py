"""The two event streams over HTTP: everything of one job, and the state of several.

Only sends frames; order and completeness are the watch's business.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Depends, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent

from api.access.principal import Caller
from api.domain.wire import EventId, WireError
from api.errors import UnprocessableError
from api.events.figures import Snapshot
from api.events.history import FIRST
from api.events.hub import Subscription
from api.events.opening import history_of
from api.events.stream import PING, Frame, JobWatch, is_read_up, list_frames
from api.services import Service

router = APIRouter(prefix="/v1", tags=["events"])

_STREAM: dict[int | str, dict[str, Any]] = {
    204: {"description": "The job is finished and was read to its end."}
}


class AlreadyReadError(Exception):
    """A watcher comes back to a finished job of which it has everything; the answer is a 204."""


@dataclass(frozen=True)
class _JobStream:
    watch: JobWatch
    subscription: Subscription


@dataclass(frozen=True)
class _ListStream:
    snapshots: Sequence[Snapshot]
    subscription: Subscription


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


async def _open_job(
    job_id: str, caller: Caller, service: Service, last: Annotated[EventId | None, Depends(_last_id)]
) -> AsyncIterator[_JobStream]:
    read = service.jobs.snapshot
    snapshot = await anyio.to_thread.run_sync(read, caller, job_id)
    history = await anyio.to_thread.run_sync(history_of, service, caller, job_id)
    if last is not None and await is_read_up(history, snapshot, last):
        raise AlreadyReadError
    async with service.hub.subscribe([job_id]) as subscription:
        # Read again: whatever changed before the subscription is in here, whatever comes after is offered.
        snapshot = await anyio.to_thread.run_sync(read, caller, job_id)
        yield _JobStream(JobWatch(history, snapshot, last or FIRST), subscription)


@router.get(
    "/jobs/{job_id}/events", response_class=EventSourceResponse, responses=_STREAM, summary="Follow a job"
)
async def job_events(
    stream: Annotated[_JobStream, Depends(_open_job)], service: Service
) -> AsyncIterator[ServerSentEvent]:
    """Send a snapshot, then every event from Last-Event-ID on without gaps, then `end`."""
    async for frame in stream.watch.frames(stream.subscription, ping_s=service.settings.sse_ping_s):
        yield _encode(frame)


async def _open_list(
    caller: Caller,
    service: Service,
    job: Annotated[list[str], Query(min_length=1, max_length=100, description="Ids; repeat the parameter.")],
) -> AsyncIterator[_ListStream]:
    jobs = list(dict.fromkeys(job))
    async with service.hub.subscribe(jobs, live=False) as subscription:
        found = [await anyio.to_thread.run_sync(service.jobs.snapshot, caller, job_id) for job_id in jobs]
        yield _ListStream([service.hub.freshened(snapshot) for snapshot in found], subscription)


@router.get("/events", response_class=EventSourceResponse, summary="Follow the state of several jobs")
async def list_events(
    stream: Annotated[_ListStream, Depends(_open_list)], service: Service
) -> AsyncIterator[ServerSentEvent]:
    """Send the snapshots of these jobs, and again each whose state or figures change, at most once a second.

    While a job runs, its `progress` is as fresh as its event stream.
    """
    ping_s = service.settings.sse_ping_s
    async for frame in list_frames(stream.subscription, stream.snapshots, ping_s=ping_s):
        yield _encode(frame)


def _encode(frame: Frame) -> ServerSentEvent:
    if frame is PING:
        return ServerSentEvent(comment="ping")
    if isinstance(frame.data, str):
        return ServerSentEvent(event=frame.event, id=frame.id, raw_data=frame.data)
    return ServerSentEvent(event=frame.event, id=frame.id, data=frame.data)
