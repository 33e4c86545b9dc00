"""What a job left behind, and how it came to it: figures, trail, attempts, log, artifacts."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from api.access.principal import Caller, owner_filter
from api.domain.records import EpochRow, Principal
from api.errors import RangeUnsatisfiableError
from api.events.history import History
from api.events.opening import history_of
from api.jobs.batches import (
    Batch,
    BatchList,
    BatchView,
    counting_batches,
    loss_figures,
    thinned_batches,
)
from api.jobs.files import parse_range, send_file
from api.jobs.sampling import thin
from api.jobs.schemas import (
    ArtifactList,
    ArtifactView,
    AttemptList,
    AttemptView,
    EpochList,
    EpochView,
    TransitionList,
    TransitionView,
)
from api.jobs.table import BATCH_COLUMNS, batch_line, results_csv, table_head
from api.services import Service, Services

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["results"])

LOG_NAME = "train.log"
_FILE: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_PARTIAL: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": _FILE}},
    206: {"description": "The range that was asked for."},
}
_PLAIN: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
    206: {"description": "The range that was asked for."},
}


MaxPoints = Annotated[
    int | None,
    Query(ge=2, le=100_000, description="Thin out to so many points at most; ends and extremes are kept."),
]
_DEFAULT_BATCHES = 2000
_LINES_AT_ONCE = 500
_EPOCH_FIGURES = ("fitness", "map50_95", "map50", "precision", "recall")
_CSV: dict[int | str, dict[str, Any]] = {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}}


@router.get("/metrics", summary="Show the figures of every epoch")
def metrics(job_id: str, caller: Caller, service: Service, max_points: MaxPoints = None) -> EpochList:
    """Return the epochs that count, in order."""
    rows = _epochs(service, caller, job_id, max_points)
    return EpochList(items=[EpochView.of(row) for row in rows])


@router.get("/metrics.csv", summary="The same as results.csv", response_class=Response, responses=_CSV)
def metrics_csv(job_id: str, caller: Caller, service: Service, max_points: MaxPoints = None) -> Response:
    """Return the epochs in the columns of YOLOv5's results.csv."""
    rows = _epochs(service, caller, job_id, max_points)
    text = results_csv((row.epoch, row.values) for row in rows)
    return Response(text, media_type="text/csv", headers=_saved_as(f"{job_id}-results.csv"))


def _epochs(service: Services, caller: Principal, job_id: str, max_points: int | None) -> list[EpochRow]:
    return thin(service.jobs.book.epochs(job_id, owner_filter(caller)), max_points, _epoch_figures)


def _epoch_figures(row: EpochRow) -> list[float | None]:
    """Return the figures whose extremes are kept, the one that is drawn out in buckets first."""
    train, val = loss_figures(row.values.get("train")), loss_figures(row.values.get("val"))
    return [train[0], *(row.values.get(name) for name in _EPOCH_FIGURES), *val, *train[1:]]


@router.get("/metrics/batches", summary="Show the losses batch by batch")
async def batches(
    job_id: str, caller: Caller, service: Service, max_points: MaxPoints = _DEFAULT_BATCHES
) -> BatchList:
    """Return the batches that count, in order, over all attempts; at most 2,000 unless told otherwise."""
    history, numbers = await anyio.to_thread.run_sync(_batch_history, service, caller, job_id)
    points, count = await thinned_batches(history, numbers, max_points or _DEFAULT_BATCHES)
    return BatchList(items=[BatchView.model_validate(point) for point in points], count=count)


@router.get("/metrics/batches.csv", summary="The same as a table", response_class=Response, responses=_CSV)
async def batches_csv(
    job_id: str, caller: Caller, service: Service, max_points: MaxPoints = None
) -> Response:
    """Return the batches that count, all unless told otherwise, under the names of results.csv's columns."""
    history, numbers = await anyio.to_thread.run_sync(_batch_history, service, caller, job_id)
    if max_points is None:
        lines = _batch_lines(counting_batches(history, numbers))
    else:
        points, _ = await thinned_batches(history, numbers, max_points)
        lines = _batch_lines(_each(points))
    return StreamingResponse(lines, media_type="text/csv", headers=_saved_as(f"{job_id}-batches.csv"))


def _batch_history(service: Services, caller: Principal, job_id: str) -> tuple[History, list[int]]:
    attempts = service.jobs.book.attempts(job_id, owner_filter(caller))
    return history_of(service, caller, job_id), [attempt.attempt for attempt in attempts]


async def _each(points: Sequence[Batch]) -> AsyncGenerator[Batch]:
    for point in points:
        yield point


async def _batch_lines(batches: AsyncGenerator[Batch]) -> AsyncIterator[str]:
    """Give the table in pieces of some lines each."""
    lines = [table_head(BATCH_COLUMNS)]
    async with aclosing(batches):
        async for batch in batches:
            lines.append(batch_line(batch))
            if len(lines) >= _LINES_AT_ONCE:
                yield "".join(lines)
                lines = []
    yield "".join(lines)


def _saved_as(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}


@router.get("/transitions", summary="Show the audit trail")
def transitions(job_id: str, caller: Caller, service: Service) -> TransitionList:
    """Return every change of state with who and why."""
    rows = service.jobs.book.transitions(job_id, owner_filter(caller))
    views = [
        TransitionView(
            seq=row.seq,
            from_status=row.from_status,
            to_status=row.to_status,
            attempt=row.attempt,
            actor=row.actor,
            reason=row.reason,
            at=row.at,
        )
        for row in rows
    ]
    return TransitionList(items=views)


@router.get("/attempts", summary="Show the attempts")
def attempts(job_id: str, caller: Caller, service: Service) -> AttemptList:
    """Return who ran the job, from where, and how it ended."""
    rows = service.jobs.book.attempts(job_id, owner_filter(caller))
    return AttemptList(items=[AttemptView.model_validate(row) for row in rows])


@router.get("/log", summary="Read the log", response_class=Response, responses=_PLAIN)
async def log(
    request: Request,
    job_id: str,
    caller: Caller,
    service: Service,
    attempt: Annotated[int | None, Query(ge=1, description="The latest if absent.")] = None,
) -> Response:
    """Return the log of an attempt, or a range of it, while it grows and afterwards."""
    path = await anyio.to_thread.run_sync(_log_path, service, caller, job_id, attempt)
    if path is None:
        return _no_log(request)
    return await send_file(request, path, media_type="text/plain; charset=utf-8")


def _log_path(service: Services, caller: Principal, job_id: str, attempt: int | None) -> Path | None:
    """Return where the log is: in the attempt's folder, or where that is elsewhere among the blobs."""
    owner = owner_filter(caller)
    # Asked for every attempt alike: a folder knows no owner.
    job = service.jobs.book.get(job_id, owner)
    number = job.attempt if attempt is None else attempt
    path = service.settings.attempt_dir(job_id, number) / LOG_NAME
    if path.is_file():
        return path
    archived = service.jobs.book.logs(job_id, LOG_NAME, owner).get(number)
    return None if archived is None else service.blobs.path(archived.sha256)


def _no_log(request: Request) -> Response:
    """A job that has not begun has an empty log."""
    if parse_range(request.headers.get("range"), 0) is not None:
        raise RangeUnsatisfiableError("RANGE_UNSATISFIABLE", "the log is empty")
    return Response("", media_type="text/plain; charset=utf-8", headers={"Accept-Ranges": "bytes"})


@router.get("/artifacts", summary="List the files a job left behind")
def artifacts(job_id: str, caller: Caller, service: Service) -> ArtifactList:
    """Return weights, plots and tables, each from the latest attempt that made it."""
    rows = service.jobs.book.artifacts(job_id, owner_filter(caller))
    return ArtifactList(items=[ArtifactView.model_validate(row) for row in rows])


@router.get("/artifacts/{name:path}", summary="Download a file", response_class=Response, responses=_PARTIAL)
async def artifact(request: Request, job_id: str, name: str, caller: Caller, service: Service) -> Response:
    """Return one file, or a range of it."""
    row = await anyio.to_thread.run_sync(service.jobs.book.artifact, job_id, name, owner_filter(caller))
    return await send_file(
        request,
        service.blobs.path(row.sha256),
        media_type=row.media_type,
        etag=row.sha256,
        file_name=row.name.rpartition("/")[2],
    )
