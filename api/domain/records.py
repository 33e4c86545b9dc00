"""Frozen pictures of rows: what the books hand out. No SQL here, and no behaviour beyond naming.

Times are seconds since 1970 (UTC); epochs and batches count from 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeVar

Json = Mapping[str, Any]
T = TypeVar("T")


class JobStatus(StrEnum):
    """States of a job; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing follows this state."""
        return self in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)


class TaskStatus(StrEnum):
    """States of a task; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing follows this state."""
        return self not in (TaskStatus.QUEUED, TaskStatus.RUNNING)


class DatasetStatus(StrEnum):
    """States of a dataset."""

    INGESTING = "ingesting"
    READY = "ready"
    INVALID = "invalid"
    INSPECTED = "inspected"


class Wish(StrEnum):
    """What a person wants of a running job; an earlier member outranks a later one."""

    CANCEL = "cancel"
    STOP = "stop"
    PAUSE = "pause"


@dataclass(frozen=True)
class Pointer:
    """Where a run goes on from: a checkpoint that is safely on disk.

    `epoch` and `batch` are the next ones to run; `path` is relative to the folder of the job; `after` is the
    id of the last event that still counts; `best` is the best epoch's row at that moment.
    """

    attempt: int
    epoch: int
    batch: int
    path: str
    sha256: str
    size_bytes: int = 0
    best: Json | None = None
    after: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the row's JSON."""
        best = dict(self.best) if self.best is not None else None
        return {**self.__dict__, "best": best}


@dataclass(frozen=True)
class Job:
    """A job as the book had it at one moment; `revision` grows with every visible change.

    `ran_s` counts the seconds of running of the attempts that ended, of at most `max_runtime_s`; `simulated`
    says that no network is trained; `cleared_at` is when the files of its attempts were deleted;
    `fingerprint` is equal for equal runs, `stopped` says that it succeeded by a stop.
    """

    id: str
    owner: str
    name: str
    tags: tuple[str, ...]
    queue: str
    priority: int
    status: JobStatus
    phase: str | None
    attempt: int
    failures: int
    preemptions: int
    worker: str | None
    lease_seq: int
    wish: Wish | None
    not_before: float | None
    dataset_id: str
    architecture_id: str
    config: Json
    config_hash: str
    pointer: Pointer | None
    progress: Json | None
    best: Json | None
    metrics: Json | None
    error: Json | None
    parent_id: str | None
    last_event_id: str | None
    revision: int
    created_at: float
    started_at: float | None
    finished_at: float | None
    max_runtime_s: int | None = None
    ran_s: float = 0.0
    simulated: bool = False
    cleared_at: float | None = None
    weights_id: str | None = None
    weights_sha256: str | None = None
    fingerprint: str | None = None
    stopped: bool = False


@dataclass(frozen=True)
class NewJob:
    """What a submission holds, already validated against dataset and architecture.

    `max_runtime_s` bounds the seconds of running over all attempts; None takes the settings' bound.
    """

    owner: str
    dataset_id: str
    architecture_id: str
    config: Json
    config_hash: str
    name: str | None = None
    tags: tuple[str, ...] = ()
    queue: str = "train.cpu"
    priority: int = 0
    parent_id: str | None = None
    max_runtime_s: int | None = None
    weights_id: str | None = None


class WaitingReason(StrEnum):
    """What a queued job waits for."""

    DATASET = "waiting_for_dataset"
    RETRY = "waiting_to_retry"
    OWNER_LIMIT = "owner_limit"
    NO_WORKER = "no_worker"
    WORKER = "waiting_for_worker"


@dataclass(frozen=True)
class Waiting:
    """Why a queued job does not run yet.

    `position` is 1 for the next one of its queue to be claimed, None where it could not be claimed now;
    `starts_at` is an estimate from how long jobs of this queue ran lately, None where nothing is known.
    """

    reason: WaitingReason
    position: int | None = None
    starts_at: float | None = None


@dataclass(frozen=True)
class QueueState:
    """How full a queue is: its jobs that could be claimed now, the running ones, and slots that live."""

    queue: str
    queued: int
    running: int
    slots: int
    idle: int
    median_run_s: float | None


@dataclass(frozen=True)
class Dataset:
    """A dataset; `splits` counts images, `error` blames the service, `files` are digests to look at."""

    id: str
    owner: str
    name: str
    status: DatasetStatus
    file_name: str
    sha256: str
    size_bytes: int
    manifest_hash: str | None
    report_sha256: str | None
    statistics: Json | None
    classes: tuple[str, ...]
    splits: Mapping[str, int]
    num_boxes: int
    num_errors: int
    num_warnings: int
    error: Json | None
    created_at: float
    finished_at: float | None
    options: Json | None = None
    files: Mapping[str, str] | None = None

    @property
    def num_classes(self) -> int:
        """How many classes it names."""
        return len(self.classes)


@dataclass(frozen=True)
class IngestResult:
    """The verdict on an archive, with digests of blobs that are stored; a manifest exactly if it is ready."""

    status: DatasetStatus
    report_sha256: str
    manifest_hash: str | None = None
    statistics: Json | None = None
    classes: tuple[str, ...] = ()
    splits: Mapping[str, int] = field(default_factory=dict)
    num_boxes: int = 0
    num_errors: int = 0
    num_warnings: int = 0
    files: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Architecture:
    """A model YAML that can become a network; `summary` is the plan's, `hash` the sha256 of the text."""

    id: str
    owner: str
    name: str
    text: str
    hash: str
    num_parameters: int
    gflops: float | None
    strides: tuple[float, ...]
    num_classes: int | None
    summary: Json
    created_at: float


@dataclass(frozen=True)
class Claim:
    """A job this worker now owns as attempt `job.attempt`, with all it needs to run it."""

    job: Job
    dataset: Dataset
    architecture: Architecture

    @property
    def attempt(self) -> int:
        """The fence of every later write."""
        return self.job.attempt


@dataclass(frozen=True)
class Task:
    """A piece of work other than training: `kind` says what, `subject_id` on which thing."""

    id: str
    owner: str
    kind: str
    subject_id: str
    queue: str
    status: TaskStatus
    attempt: int
    failures: int
    preemptions: int
    worker: str | None
    lease_seq: int
    wish: Wish | None
    not_before: float | None
    payload: Json
    error: Json | None
    revision: int
    created_at: float
    started_at: float | None
    finished_at: float | None
    result: Json | None = None


@dataclass(frozen=True)
class Transition:
    """One change of a job's state: the audit trail. `from_status` is None for its birth."""

    seq: int
    job_id: str
    from_status: JobStatus | None
    to_status: JobStatus
    attempt: int
    actor: str
    reason: str
    at: float


@dataclass(frozen=True)
class Attempt:
    """One attempt at a job: who ran it, from where, and how it ended."""

    job_id: str
    attempt: int
    worker: str
    host: str
    gpus: tuple[str, ...]
    resumed_from: Json | None
    started_at: float
    finished_at: float | None
    outcome: str | None
    code: str | None
    exit_code: int | None
    last_event_id: str | None


@dataclass(frozen=True)
class EpochRow:
    """The figures of one epoch; `values` is the epoch event's payload, `event_id` where it was told."""

    epoch: int
    values: Json
    attempt: int = 0
    event_id: str | None = None
    superseded: bool = False
    recorded_at: float = 0.0


@dataclass(frozen=True)
class Artifact:
    """A file a run left; its bytes are the blob `sha256`. `kind`: weights, plot, table, report, log."""

    name: str
    kind: str
    sha256: str
    size_bytes: int
    media_type: str
    attempt: int = 0
    created_at: float = 0.0


@dataclass(frozen=True)
class Slot:
    """One place where a worker runs one job or task at a time."""

    id: str
    queue: str
    host: str
    pid: int
    gpus: tuple[str, ...]
    version: str
    state: str
    current_id: str | None
    seen_at: float
    started_at: float
    reason: str | None = None
    unhealthy_since: float | None = None


@dataclass(frozen=True)
class Principal:
    """Who a request speaks for, and what its token allows."""

    id: str
    name: str
    scopes: frozenset[str]
    token_id: str

    @property
    def is_admin(self) -> bool:
        """Whether it may see what others own."""
        return "admin" in self.scopes


@dataclass(frozen=True)
class Page(Generic[T]):
    """Some items, newest first, and the cursor of the next ones."""

    items: tuple[T, ...]
    next: str | None
