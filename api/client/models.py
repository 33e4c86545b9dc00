"""The service's answers as typed values.

Fields a newer server adds are kept rather than refused, so an old client goes on working.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

FINAL_STATES = frozenset({"succeeded", "failed", "cancelled"})


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")

    def as_json(self) -> dict[str, Any]:
        """Return the answer as the service gave it."""
        return self.model_dump(mode="json")


class Dataset(_Answer):
    """An uploaded dataset and what its check found."""

    id: str
    name: str
    status: Literal["ingesting", "ready", "invalid", "inspected"]
    size_bytes: int | None = None
    num_classes: int | None = None
    classes: list[str] | None = None
    splits: dict[str, int] | None = None
    num_boxes: int | None = None
    problems: dict[str, int] | None = None


class Weights(_Answer):
    """Weights that were sent, and what their import found; `report` where they were asked for by id."""

    id: str
    name: str
    status: Literal["importing", "ready", "invalid", "failed"]
    file_name: str | None = None
    size_bytes: int | None = None
    num_classes: int | None = None
    num_tensors: int | None = None
    num_parameters: int | None = None
    problems: dict[str, int] | None = None
    provenance: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    report: dict[str, Any] | None = None


class Architecture(_Answer):
    """A model YAML that the service accepted."""

    id: str
    name: str
    num_parameters: int | None = None
    gflops: float | None = None
    strides: list[float] | None = None
    num_classes: int | None = None


class Job(_Answer):
    """A training job as it stands now."""

    id: str
    name: str | None = None
    status: Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]
    phase: str | None = None
    wish: str | None = None
    attempt: int = 0
    failures: int = 0
    queue: str | None = None
    priority: int = 0
    parent: str | None = None
    fingerprint: str | None = None
    simulated: bool = False
    progress: dict[str, Any] | None = None
    best: dict[str, Any] | None = None
    metrics: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    waiting_reason: str | None = None
    queue_position: int | None = None
    estimated_start_at: float | None = None
    revision: int | None = None
    created_at: Any = None

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen to the job."""
        return self.status in FINAL_STATES


@dataclass(frozen=True)
class Submission:
    """The job a submission led to: a new one, or one that was there (of its key, or of the same run)."""

    job: Job
    is_reused: bool


class Probe(_Answer):
    """How long a batch of a job takes, once a worker has measured it: `result`, or `error`."""

    id: str
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    worker: str | None = None
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None

    @property
    def is_final(self) -> bool:
        """Whether nothing more will be measured."""
        return self.status in FINAL_STATES


class Attempt(_Answer):
    """One attempt at a job; times are seconds since 1970."""

    attempt: int
    worker: str | None = None
    started_at: float | None = None
    finished_at: float | None = None
    outcome: str | None = None
    code: str | None = None
    exit_code: int | None = None


class Worker(_Answer):
    """One place where a worker runs one job at a time; `reason` says why it is unhealthy."""

    id: str
    queue: str
    state: str
    reason: str | None = None
    current_id: str | None = None
    seen_at: float | None = None


class Queue(_Answer):
    """How full a queue of jobs is."""

    name: str
    queued: int = 0
    running: int = 0
    workers: int = 0
    idle: int = 0
    median_run_s: float | None = None


class Artifact(_Answer):
    """A file a job left."""

    name: str
    kind: str | None = None
    size_bytes: int
    sha256: str
    media_type: str | None = None


class Event(_Answer):
    """One event of a job: `id` is where to resume, absent on snapshots; `data` is the payload."""

    type: str
    id: str | None = None
    data: dict[str, Any] = {}
