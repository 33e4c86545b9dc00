"""What a job looks like over HTTP; the promise to clients, apart from the rows it is made of."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

from api.domain import records, wire
from api.domain.fingerprints import OnDuplicate

Tag = Annotated[str, Field(min_length=1, max_length=60)]
Name = Annotated[str, Field(min_length=1, max_length=120)]
Tags = Annotated[list[Tag], Field(max_length=20)]
Priority = Annotated[int, Field(ge=-1000, le=1000, description="Higher ones of a queue go first.")]
MaxRuntime = Annotated[
    int, Field(ge=1, le=31_536_000, description="Seconds of running, over all attempts; empty: as set up.")
]
Queue = Annotated[
    str,
    Field(
        pattern=wire.QUEUE_TRAIN_PATTERN,
        description="Queue of the workers that may run it: train.cpu, or train.g<n> for n GPUs.",
    ),
]


class JobRequest(BaseModel):
    """What is submitted; `config` is checked as a TrainConfig and need name only what is not default."""

    model_config = ConfigDict(extra="forbid")

    dataset: str = Field(max_length=80, description="Id of a dataset that is ready or still being ingested.")
    architecture: str = Field(max_length=80, description="Id of an architecture.")
    config: dict[str, Any] = Field(default_factory=dict, description="See /v1/config/schema.")
    weights: str | None = Field(
        None, max_length=120, description="Id or name of weights that are ready, to start from."
    )
    name: Name | None = Field(None, description="Made up if absent.")
    tags: Tags = Field(default_factory=list)
    queue: Queue | None = None
    priority: Priority = 0
    max_runtime_s: MaxRuntime | None = None
    on_duplicate: OnDuplicate = Field(
        OnDuplicate.NEW,
        description="If one of your jobs is the same run and has succeeded or may yet: `new` queues another, "
        "`reuse` answers with that one (200), `refuse` with 409 and its id.",
    )


class RerunRequest(BaseModel):
    """What is to be different in a rerun; what is absent stays as it was."""

    model_config = ConfigDict(extra="forbid")

    dataset: str | None = Field(None, max_length=80, description="Id of another dataset.")
    architecture: str | None = Field(None, max_length=80, description="Id of another architecture.")
    weights: str | None = Field(None, max_length=120, description="Id or name of other weights; empty: none.")
    config: dict[str, Any] = Field(
        default_factory=dict,
        description="Laid over the configuration of the job, section by section; a preset replaces its hyp.",
    )
    name: Name | None = None
    tags: Tags | None = None
    queue: Queue | None = None
    priority: Priority | None = None
    max_runtime_s: MaxRuntime | None = None


class JobEdit(BaseModel):
    """What may be changed of a job until it ends; what is absent stays as it is."""

    model_config = ConfigDict(extra="forbid")

    name: Name | None = None
    tags: Tags | None = None
    priority: Priority | None = None


class JobView(BaseModel):
    """A job as clients see it; times are seconds since 1970 (UTC), epochs and batches count from 0."""

    id: str
    name: str
    tags: list[str]
    status: records.JobStatus
    phase: str | None
    attempt: int
    failures: int
    preemptions: int
    queue: str
    priority: int
    max_runtime_s: int | None
    ran_s: float = Field(description="Seconds that the attempts ran that have ended.")
    not_before: float | None = Field(description="When the next attempt may start at the earliest.")
    parent: str | None = Field(description="The job this one is a rerun of.")
    simulated: bool = Field(description="No network is trained and no weights will come of it.")
    dataset: str
    architecture: str
    config: dict[str, Any]
    config_hash: str
    weights: str | None = Field(None, description="Id of the weights it starts from.")
    weights_sha256: str | None = Field(None, description="Digest of their stored file.")
    fingerprint: str | None = Field(
        None, description="Equal for equal dataset, architecture, configuration, weights and program."
    )
    stopped: bool = Field(False, description="It succeeded by a stop, before its last epoch.")
    progress: dict[str, Any] | None
    best: dict[str, Any] | None
    metrics: dict[str, Any] | None = Field(description="The figures of the last epoch.")
    error: dict[str, Any] | None
    wish: records.Wish | None
    waiting_reason: records.WaitingReason | None = None
    queue_position: int | None = Field(None, description="1 is the next of its queue to start.")
    estimated_start_at: float | None = Field(None, description="From how long jobs of its queue ran lately.")
    worker: str | None
    last_event_id: str | None
    revision: int
    created_at: float
    started_at: float | None
    finished_at: float | None
    links: dict[str, str]

    @classmethod
    def of(cls, job: records.Job, waiting: records.Waiting | None = None) -> Self:
        """Make the view of a row, and of what it waits for."""
        base = f"/v1/jobs/{job.id}"
        return cls(
            id=job.id,
            name=job.name,
            tags=list(job.tags),
            status=job.status,
            phase=job.phase,
            attempt=job.attempt,
            failures=job.failures,
            preemptions=job.preemptions,
            queue=job.queue,
            priority=job.priority,
            max_runtime_s=job.max_runtime_s,
            ran_s=job.ran_s,
            not_before=job.not_before,
            parent=job.parent_id,
            simulated=job.simulated,
            dataset=job.dataset_id,
            architecture=job.architecture_id,
            config=dict(job.config),
            config_hash=job.config_hash,
            weights=job.weights_id,
            weights_sha256=job.weights_sha256,
            fingerprint=job.fingerprint,
            stopped=job.stopped,
            progress=_dict(job.progress),
            best=_dict(job.best),
            metrics=_dict(job.metrics),
            error=_dict(job.error),
            wish=job.wish,
            waiting_reason=waiting.reason if waiting else None,
            queue_position=waiting.position if waiting else None,
            estimated_start_at=waiting.starts_at if waiting else None,
            worker=job.worker,
            last_event_id=job.last_event_id,
            revision=job.revision,
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            links={"self": base, **{name: f"{base}/{name}" for name in _LINKS}},
        )

    @property
    def etag(self) -> str:
        """The weak tag of this state: another one as soon as the job or what it waits for is another."""
        place = "" if self.queue_position is None else f"-{self.queue_position}"
        return f'W/"{self.revision}-{self.waiting_reason or self.status.value}{place}"'


_READS = ("events", "metrics", "transitions", "attempts", "artifacts", "log")
_LINKS = (*_READS, "cancel", "stop", "pause", "activate", "rerun")


def _dict(value: records.Json | None) -> dict[str, Any] | None:
    return None if value is None else dict(value)


class JobPage(BaseModel):
    """Some jobs, newest first."""

    items: list[JobView]
    next: str | None


class EpochView(BaseModel):
    """The figures of one epoch, flat as in its event."""

    model_config = ConfigDict(extra="allow")

    epoch: int
    attempt: int
    event_id: str | None

    @classmethod
    def of(cls, row: records.EpochRow) -> Self:
        """Make the view of a row."""
        values = {**row.values, "epoch": row.epoch, "attempt": row.attempt, "event_id": row.event_id}
        return cls.model_validate(values)


class EpochList(BaseModel):
    """The epochs that count, in order."""

    items: list[EpochView]


class TransitionView(BaseModel):
    """One change of state."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    seq: int
    from_status: records.JobStatus | None = Field(alias="from")
    to_status: records.JobStatus = Field(alias="to")
    attempt: int
    actor: str
    reason: str
    at: float


class TransitionList(BaseModel):
    """The audit trail of a job, in order."""

    items: list[TransitionView]


class AttemptView(BaseModel):
    """One attempt at a job."""

    model_config = ConfigDict(from_attributes=True)

    attempt: int
    worker: str
    host: str
    gpus: list[str]
    resumed_from: dict[str, Any] | None
    started_at: float
    finished_at: float | None
    outcome: str | None
    code: str | None
    exit_code: int | None
    last_event_id: str | None


class AttemptList(BaseModel):
    """The attempts at a job, in order."""

    items: list[AttemptView]


class ArtifactView(BaseModel):
    """A file a run left behind."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    kind: str
    size_bytes: int
    sha256: str
    media_type: str
    attempt: int
    created_at: float


class ArtifactList(BaseModel):
    """The files a job left behind."""

    items: list[ArtifactView]
