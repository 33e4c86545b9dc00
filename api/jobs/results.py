"""What a job left behind, and how it came to it: figures, trail, attempts, log, artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Query, Request, Response

from api.access.principal import Caller, owner_filter
from api.domain.records import Principal
from api.errors import RangeUnsatisfiableError
from api.jobs.files import parse_range, send_file
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
from api.jobs.table import results_csv
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


@router.get("/metrics", summary="Show the figures of every epoch")
def metrics(
    job_id: str,
    caller: Caller,
    service: Service,
    max_points: Annotated[int | None, Query(ge=2, le=100_000, description="Thin out to this many.")] = None,
) -> EpochList:
    """Return the epochs that count, in order."""
    rows = service.jobs.book.epochs(job_id, owner_filter(caller))
    return EpochList(items=[EpochView.of(rows[index]) for index in thinned(len(rows), max_points)])


def thinned(count: int, most: int | None) -> list[int]:
    """Return the indices of at most `most` of `count` things, evenly spread, first and last among them."""
    if most is None or count <= most:
        return list(range(count))
    return [round(step * (count - 1) / (most - 1)) for step in range(most)]


@router.get(
    "/metrics.csv",
    summary="The same as results.csv",
    response_class=Response,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
def metrics_csv(job_id: str, caller: Caller, service: Service) -> Response:
    """Return the epochs in the columns of YOLOv5's results.csv."""
    rows = service.jobs.book.epochs(job_id, owner_filter(caller))
    text = results_csv((row.epoch, row.values) for row in rows)
    headers = {"Content-Disposition": f'attachment; filename="{job_id}-results.csv"'}
    return Response(text, media_type="text/csv", headers=headers)


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
