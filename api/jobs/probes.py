"""Probes: how long a batch of a job takes on a worker of its queue, measured before the job is submitted."""

from __future__ import annotations

from typing import Any, Self

from fastapi import APIRouter
from pydantic import BaseModel, Field

from api.access.principal import Caller, owner_filter
from api.domain.records import DatasetStatus, Task, TaskStatus
from api.errors import ConflictError
from api.jobs.schemas import JobRequest
from api.services import Service

router = APIRouter(prefix="/v1", tags=["jobs"])


class ProbeView(BaseModel):
    """A probe; `result` once it has succeeded."""

    id: str
    status: TaskStatus
    queue: str
    worker: str | None = Field(description="Which one measures.")
    result: dict[str, Any] | None = Field(
        description="batch_s, images_per_s, peak_bytes, batch, device, threads; or code and message."
    )
    error: dict[str, Any] | None
    created_at: float
    finished_at: float | None

    @classmethod
    def of(cls, task: Task) -> Self:
        """Make the view of a row."""
        return cls(
            id=task.id,
            status=task.status,
            queue=task.queue,
            worker=task.worker,
            result=dict(task.result) if task.result is not None else None,
            error=dict(task.error) if task.error is not None else None,
            created_at=task.created_at,
            finished_at=task.finished_at,
        )


@router.post("/jobs/probe", status_code=202, summary="Time a few batches of a job on a worker")
def probe(body: JobRequest, caller: Caller, service: Service) -> ProbeView:
    """Check a job as a submission, and have a worker of its queue time it, before the jobs that wait."""
    found = service.jobs.prepare(caller.id, body)
    if found.dataset.status is not DatasetStatus.READY:
        raise ConflictError("DATASET_NOT_READY", f"the dataset is {found.dataset.status.value}")
    payload = {
        "config": found.new.config,
        "architecture": {"name": found.architecture.name, "text": found.architecture.text},
        "manifest_hash": found.dataset.manifest_hash,
    }
    task = service.probes.create(caller.id, found.dataset.id, found.new.queue, payload)
    service.kick()
    return ProbeView.of(task)


@router.get("/probes/{probe_id}", summary="Show a probe")
def show(probe_id: str, caller: Caller, service: Service) -> ProbeView:
    """Return a probe as it stands."""
    return ProbeView.of(service.probes.get(probe_id, owner_filter(caller)))


@router.delete("/probes/{probe_id}", status_code=204, summary="End a probe")
def cancel(probe_id: str, caller: Caller, service: Service) -> None:
    """Have a probe not measured, or no longer; one that has ended stays as it is."""
    service.probes.cancel(probe_id, owner_filter(caller))
