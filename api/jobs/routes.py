"""Jobs: submitted, listed, shown, waited for; what may be done with one is in `commands`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response

from api.access.principal import Caller
from api.domain.records import JobStatus
from api.jobs import commands
from api.jobs.checking import JobCheck, check_job
from api.jobs.commands import IdempotencyKey, answer_submitted
from api.jobs.etags import matches
from api.jobs.schemas import JobPage, JobRequest, JobView
from api.jobs.waiting import wait_for, wanted_wait_s
from api.paging import Cursor, Limit, link_next
from api.services import Service
from yolocore.spec.config import TrainConfig
from yolocore.spec.presets import PRESETS

router = APIRouter(prefix="/v1", tags=["jobs"])
router.include_router(commands.router)


_REUSED: dict[int | str, dict[str, Any]] = {
    200: {"description": "An identical run is there and was asked for: no new job.", "model": JobView}
}


@router.post("/jobs", status_code=201, summary="Submit a job", responses=_REUSED)
def submit(
    body: JobRequest,
    response: Response,
    caller: Caller,
    service: Service,
    idempotency_key: IdempotencyKey = None,
) -> JobView:
    """Check a submission against its dataset and architecture, and queue it."""
    submitted = service.jobs.submit(caller, body, key=idempotency_key)
    return answer_submitted(service, submitted, response)


@router.post("/jobs/check", summary="Check a job without queueing it")
def check(body: JobRequest, caller: Caller, service: Service) -> JobCheck:
    """Refuse what a submission would be refused for, and tell what it would be: batches, memory, twin."""
    return check_job(service.jobs, caller, body)


@router.get("/jobs", summary="List jobs")
def list_jobs(
    request: Request,
    response: Response,
    caller: Caller,
    service: Service,
    status: Annotated[list[JobStatus] | None, Query(description="Only these states; repeatable.")] = None,
    fingerprint: Annotated[
        str | None, Query(pattern="^[0-9a-f]{64}$", description="Only runs that are the same as this.")
    ] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> JobPage:
    """Return jobs, newest first."""
    page = service.jobs.list(caller, status=status or [], fingerprint=fingerprint, limit=limit, cursor=cursor)
    link_next(request, response, page.next)
    return JobPage(items=service.jobs.views(page.items), next=page.next)


@router.get("/jobs/{job_id}", summary="Show a job, or wait for news of it", response_model=JobView)
async def show(
    job_id: str,
    response: Response,
    caller: Caller,
    service: Service,
    if_none_match: Annotated[str | None, Header(description="An ETag: 304 if it is still that.")] = None,
    prefer: Annotated[str | None, Header(description="`wait=30` holds the answer back for news.")] = None,
) -> Any:
    """Return a job.

    With `Prefer: wait=N` the answer comes when the job is not what If-None-Match says any more, or, without
    that header, when it has ended; in any case after N seconds.
    """
    wait_s = wanted_wait_s(prefer, most_s=service.settings.long_poll_max_s)

    def is_news(view: JobView) -> bool:
        if if_none_match is not None:
            return not matches(if_none_match, view.etag)
        return view.status.is_final

    view = await wait_for(
        lambda: service.jobs.get(caller, job_id),
        is_news,
        wait_s=wait_s,
        stopping=lambda: service.hub.closing,
    )
    headers = {"ETag": view.etag, "Cache-Control": "private, no-cache", "Vary": "Prefer"}
    if wait_s:
        headers["Preference-Applied"] = f"wait={wait_s:g}"
    if if_none_match is not None and matches(if_none_match, view.etag):
        return Response(status_code=304, headers=headers)
    response.headers.update(headers)
    return view


@router.get("/config/schema", summary="Show what a configuration may hold")
def config_schema() -> dict[str, Any]:
    """Return the JSON schema of a job's `config`, with titles, descriptions, groups, bounds, defaults."""
    return TrainConfig.model_json_schema()


@router.get("/presets", summary="Show the hyperparameter sets")
def presets() -> dict[str, dict[str, float | None]]:
    """Return the published sets a config's `preset` can name."""
    return PRESETS
