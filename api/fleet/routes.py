"""Workers, and whether the service is well: for people, load balancers and supervisors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Self

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from api.access.principal import Caller
from api.domain import wire
from api.domain.errors import StoreUnavailable
from api.domain.records import QueueState
from api.domain.store import needs_migration, newest_revision
from api.domain.versions import API_VERSION, program_version
from api.errors import ForbiddenError
from api.services import Service, Services

router = APIRouter(tags=["fleet"])


class WorkerView(BaseModel):
    """One place where a worker runs one job at a time."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    queue: str
    host: str
    pid: int
    gpus: list[str]
    version: str
    state: str
    reason: str | None = Field(description="Why it is unhealthy (a person must look) or outdated.")
    unhealthy_since: float | None
    current_id: str | None
    seen_at: float
    started_at: float


class WorkerList(BaseModel):
    """All slots that ever announced themselves and were not removed."""

    items: list[WorkerView]


class QueueView(BaseModel):
    """How full a queue of jobs is; `workers` are the slots that live and take work."""

    name: str
    queued: int = Field(description="Jobs that could start now.")
    running: int
    workers: int
    idle: int = Field(description="Workers without a job.")
    median_run_s: float | None = Field(description="How long jobs of it ran lately.")

    @classmethod
    def of(cls, state: QueueState) -> Self:
        """Make the view of a state."""
        return cls(
            name=state.queue,
            queued=state.queued,
            running=state.running,
            workers=state.slots,
            idle=state.idle,
            median_run_s=state.median_run_s,
        )


class QueueList(BaseModel):
    """All queues that have work or workers, by name."""

    items: list[QueueView]


class Readiness(BaseModel):
    """Whether requests can be served; `degraded` means yes, but work or events come late."""

    status: Literal["ready", "degraded", "unavailable"]
    checks: dict[str, str]


class VersionView(BaseModel):
    """What a client, a worker and a database must agree on."""

    name: Literal["trainshed"] = "trainshed"
    version: str = Field(description="Of the program.")
    api: str = Field(description="Of the addresses, the first part of their path.")
    schema_revision: str = Field(alias="schema", description="Of the tables the program knows.")
    events: int = Field(description="Of the envelope of an event (`v`).")


@router.get("/v1/workers", summary="List workers")
def workers(service: Service) -> WorkerList:
    """Return the slots with what each does and when it was last seen."""
    return WorkerList(items=[WorkerView.model_validate(slot) for slot in service.workers.list()])


@router.post("/v1/workers/{worker_id:path}/clear", summary="Let an unhealthy worker take work again")
def clear(worker_id: str, caller: Caller, service: Service) -> WorkerView:
    """Take a worker's word back that it is unhealthy, after a person has looked; administrators only."""
    if not caller.is_admin:
        raise ForbiddenError("SCOPE_MISSING", "the token lacks the scope 'admin'")
    return WorkerView.model_validate(service.workers.clear(worker_id))


@router.get("/v1/queues", summary="List queues")
def queues(service: Service) -> QueueList:
    """Return what waits and runs in each queue of jobs, and the workers it has."""
    return QueueList(items=[QueueView.of(state) for state in service.jobs.book.queues()])


@router.get("/healthz", summary="Tell that the process lives")
def healthz() -> dict[str, str]:
    """Touch nothing and say ok."""
    return {"status": "ok"}


@router.get("/readyz", summary="Tell whether requests can be served", responses={503: {"model": Readiness}})
def readyz(response: Response, service: Service) -> Readiness:
    """Check database, migrations and storage; a missing Redis or an ailing loop only degrades it."""
    vital: dict[str, Callable[[], str]] = {
        "database": lambda: _database(service),
        "storage": lambda: _storage(service),
    }
    checks = {name: check() for name, check in vital.items()}
    well = all(state == "ok" for state in checks.values())
    checks["redis"] = "ok" if service.hub.streams.up else "away"
    checks |= _loops(service)
    if not well:
        response.status_code = 503
        return Readiness(status="unavailable", checks=checks)
    smooth = all(state == "ok" for state in checks.values())
    return Readiness(status="ready" if smooth else "degraded", checks=checks)


def _loops(service: Services) -> dict[str, str]:
    """Tell how each loop beside this process is doing; what ails it is for the log, not for strangers."""
    if service.loops is None:
        return {}
    states = service.loops.states()
    return {name: "ok" if state.error is None else "failing, see the log" for name, state in states.items()}


def _database(service: Services) -> str:
    try:
        return "needs migration" if needs_migration(service.store) else "ok"
    except StoreUnavailable:
        return "away"


def _storage(service: Services) -> str:
    try:
        with service.blobs.open_writer() as writer:
            writer.write(b"ready?")
    except OSError as error:
        return f"cannot be written: {error.strerror}"
    return "ok"


@router.get("/version", summary="Tell the versions")
def version() -> VersionView:
    """Return the versions of the program, of the interface, of its tables and of its events."""
    schema = newest_revision()
    return VersionView(
        version=program_version(), api=API_VERSION, schema=schema, events=wire.ENVELOPE_VERSION
    )
