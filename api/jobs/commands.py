"""What a person may do with a job: cancel, stop, pause, activate, edit, rerun, delete.

Which of it a state allows is the book's to say; a refusal is a 409 that names the state.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response

from api.access.principal import Caller, owner_filter
from api.domain.jobs import Submitted
from api.domain.records import Job
from api.errors import ApiError, PreconditionFailedError
from api.jobs.schemas import JobEdit, JobView, RerunRequest
from api.services import Service, Services

router = APIRouter(prefix="/jobs/{job_id}", tags=["jobs"])

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="The same key gives the same job, however often it is sent.",
    ),
]
IfMatch = Annotated[
    str | None,
    Header(description="The job's ETag, of which only the revision counts, or `*` for whatever it is now."),
]
_TOLD: dict[int | str, dict[str, Any]] = {
    202: {"description": "Not done yet: a worker is told. `wish` is what will be done.", "model": JobView}
}
# Entity tags as this service gives them; also a bare revision in quotes.
_TAG = re.compile(r'(?:W/)?"(\d{1,15})(?:-[^"]*)?"')


@router.post("/cancel", summary="Cancel a job", responses=_TOLD)
def cancel(job_id: str, response: Response, caller: Caller, service: Service) -> JobView:
    """Drop a job: at once if it waits, within seconds if it runs (202)."""
    return _answer(service, service.jobs.book.cancel(job_id, owner_filter(caller)), response)


@router.post("/stop", summary="Stop a job and keep its best", responses=_TOLD)
def stop(job_id: str, response: Response, caller: Caller, service: Service) -> JobView:
    """End a job with the best it has so far; one that has nothing yet is cancelled.

    202 until its weights are stored: one that does not run is queued for a worker to export them.
    """
    job = service.jobs.book.stop(job_id, owner_filter(caller))
    service.kick()
    return _answer(service, job, response)


@router.post("/pause", summary="Pause a job", responses=_TOLD)
def pause(job_id: str, response: Response, caller: Caller, service: Service) -> JobView:
    """Hold a job that waits; let one that runs write a checkpoint and give its place back (202)."""
    return _answer(service, service.jobs.book.pause(job_id, owner_filter(caller)), response)


@router.post("/activate", summary="Let a paused job go on", responses=_TOLD)
def activate(job_id: str, response: Response, caller: Caller, service: Service) -> JobView:
    """Queue a paused job, take back a pause that is not done yet, end the wait before a retry.

    A stop is taken back as long as the job is queued. A job that runs is not spared a cancel or stop: 202
    with the `wish` that stands.
    """
    job = service.jobs.book.activate(job_id, owner_filter(caller))
    service.kick()
    return _answer(service, job, response)


@router.patch("", summary="Edit a job")
def edit(
    job_id: str,
    response: Response,
    caller: Caller,
    service: Service,
    body: JobEdit | None = None,
    if_match: IfMatch = None,
) -> JobView:
    """Change name, tags or priority until the job ends; 412 if it changed since the caller read it."""
    owner = owner_filter(caller)
    revision = service.jobs.book.get(job_id, owner).revision
    expected = _expected(if_match, revision)
    wanted = body or JobEdit()
    job = service.jobs.book.edit(
        job_id, owner, expected=expected, name=wanted.name, tags=wanted.tags, priority=wanted.priority
    )
    return _answer(service, job, response, status=200)


@router.post("/rerun", status_code=201, summary="Submit a job again, with edits")
def rerun(
    job_id: str,
    response: Response,
    caller: Caller,
    service: Service,
    body: RerunRequest | None = None,
    idempotency_key: IdempotencyKey = None,
) -> JobView:
    """Queue a new job that is like this one but for what the body says; its `parent` is this one."""
    edits = body or RerunRequest()
    return answer_submitted(service, service.jobs.rerun(caller, job_id, edits, key=idempotency_key), response)


@router.delete("", status_code=204, summary="Delete a job that has ended")
def delete(job_id: str, caller: Caller, service: Service) -> None:
    """Forget a job with its figures and artifacts; 409 until it has ended."""
    service.jobs.book.delete(job_id, owner_filter(caller))


def answer_submitted(service: Services, submitted: Submitted, response: Response) -> JobView:
    """Let the dispatcher look, and return the view of a submission with where it is."""
    service.kick()
    view = service.jobs.view(submitted.job)
    response.headers["Location"] = view.links["self"]
    response.headers["ETag"] = view.etag
    if submitted.is_reused:
        response.status_code = 200
        response.headers["Run-Reused"] = "true"
    elif not submitted.created:
        response.headers["Idempotent-Replayed"] = "true"
    return view


def _answer(service: Services, job: Job, response: Response, *, status: int | None = None) -> JobView:
    """Return the view; 202 where a wish is not carried out yet, or as told."""
    response.status_code = status or (200 if job.wish is None else 202)
    view = service.jobs.view(job)
    response.headers["ETag"] = view.etag
    return view


def _expected(if_match: str | None, revision: int) -> int | None:
    """Return the revision an edit is bound to, None for any; raises 428 without a header and 412."""
    if if_match is None:
        detail = "say which state of the job is to be edited: If-Match with its ETag, or * for any"
        place = {"pointer": "If-Match", "message": "missing"}
        raise ApiError("IF_MATCH_MISSING", detail, errors=[place], status=428)
    tags = [tag.strip() for tag in if_match.split(",")]
    if "*" in tags:
        return None
    if any((match := _TAG.fullmatch(tag)) and int(match[1]) == revision for tag in tags):
        return revision
    place = {"pointer": "If-Match", "message": "not of this state", "value": if_match[:200]}
    detail = f"the job has changed, it is at revision {revision}: read it again"
    raise PreconditionFailedError("REVISION_MISMATCH", detail, errors=[place])
