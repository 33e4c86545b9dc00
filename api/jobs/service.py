"""What can be done with jobs: check a submission against its dataset and architecture, queue it, show it.

The rules of states are the book's; this file adds what only the spec knows, and what a waiting job waits for.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from typing import Any

from api.access.principal import owner_filter
from api.architectures.service import plan_text
from api.domain.architectures import ArchitectureBook
from api.domain.datasets import DatasetBook
from api.domain.errors import NotFound
from api.domain.fleet import WorkerBook
from api.domain.jobs import WAITING_FOR_DATASET, JobBook, Submitted
from api.domain.records import Architecture, Dataset, DatasetStatus, Job, JobStatus, NewJob, Page, Principal
from api.domain.settings import Settings
from api.errors import ConflictError, UnprocessableError, from_core
from api.jobs.schemas import JobRequest, JobView
from yolocore.errors import ArchitectureError, ConfigError
from yolocore.spec.config import TrainConfig, parse_config
from yolocore.spec.fit import check_fit

_GONE = "gone"
_SEEN_BEATS = 4


class JobService:
    """Jobs as one caller may see them; `book` has the questions that need no more than an owner."""

    def __init__(
        self,
        book: JobBook,
        datasets: DatasetBook,
        architectures: ArchitectureBook,
        workers: WorkerBook,
        settings: Settings,
    ) -> None:
        self.book = book
        self._datasets = datasets
        self._architectures = architectures
        self._workers = workers
        self._settings = settings
        self._snapshots: dict[str, dict[str, Any]] = {}

    def submit(self, caller: Principal, request: JobRequest, *, key: str | None) -> Submitted:
        """Queue a job, at most once for a key: what was sent before gives its job, whatever changed since.

        Raises UnprocessableError with a pointer for what does not fit, Conflict for an invalid dataset or a
        key that was used for something else.
        """
        fingerprint = _fingerprint(request)
        if key is not None and (known := self.book.submitted_as(caller.id, key, fingerprint)) is not None:
            return Submitted(known, created=False)
        config = _config(request.config)
        dataset = self._dataset(caller, request.dataset)
        architecture = self._architecture(caller, request.architecture)
        _check_fit(architecture, dataset, config)
        new = NewJob(
            owner=caller.id,
            dataset_id=dataset.id,
            architecture_id=architecture.id,
            config=config.model_dump(mode="json"),
            config_hash=config.config_hash(),
            name=request.name,
            tags=tuple(request.tags),
            queue=request.queue or self._settings.queue,
        )
        return self.book.submit(new, key=key, fingerprint=fingerprint)

    def _dataset(self, caller: Principal, dataset_id: str) -> Dataset:
        try:
            dataset = self._datasets.get(dataset_id, caller.id)
        except NotFound as error:
            raise _unknown("/dataset", dataset_id, error) from error
        if dataset.status is DatasetStatus.INVALID:
            raise ConflictError(
                "DATASET_INVALID",
                f"the dataset is invalid; /v1/datasets/{dataset.id}/problems tells why",
                errors=[{"pointer": "/dataset", "message": "the dataset is invalid", "value": dataset.id}],
            )
        return dataset

    def _architecture(self, caller: Principal, architecture_id: str) -> Architecture:
        try:
            return self._architectures.get(architecture_id, caller.id)
        except NotFound as error:
            raise _unknown("/architecture", architecture_id, error) from error

    def get(self, caller: Principal, job_id: str) -> JobView:
        """Return one; raises NotFound."""
        return self.view(self.book.get(job_id, owner_filter(caller)))

    def list(
        self, caller: Principal, *, status: Sequence[JobStatus], limit: int, cursor: str | None
    ) -> Page[Job]:
        """Return jobs, newest first."""
        return self.book.list(owner_filter(caller), status=status, limit=limit, cursor=cursor)

    def view(self, job: Job) -> JobView:
        """Make the view of a row, with what it waits for."""
        return JobView.of(job, waiting_reason=self._waiting_reason(job))

    def views(self, jobs: Sequence[Job]) -> Sequence[JobView]:
        """Make the views of rows."""
        return [self.view(job) for job in jobs]

    def _waiting_reason(self, job: Job) -> str | None:
        if job.status is not JobStatus.QUEUED:
            return None
        if job.phase == WAITING_FOR_DATASET:
            return WAITING_FOR_DATASET
        now = time.time()
        if job.not_before is not None and job.not_before > now:
            return "waiting_to_retry"
        return "waiting_for_worker" if self._is_served(job.queue, now) else "no_worker"

    def _is_served(self, queue: str, now: float) -> bool:
        patience_s = max(_SEEN_BEATS * self._settings.heartbeat_s, self._settings.lease_s)
        slots = (slot for slot in self._workers.list() if slot.queue == queue and slot.state != _GONE)
        return any(now - slot.seen_at < patience_s for slot in slots)

    def snapshot(self, caller: Principal, job_id: str) -> dict[str, Any]:
        """Return the JSON of one, as events carry it; raises NotFound."""
        return self.get(caller, job_id).model_dump(mode="json")

    def current_snapshots(self, job_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return the JSON of these jobs for the hub, which asks again and again for the same ones."""
        known = self._snapshots
        fresh: dict[str, dict[str, Any]] = {}
        for job_id, revision in self.book.revisions(job_ids).items():
            snapshot = known.get(job_id)
            # What a queued job waits for changes with the workers, not with the job's own row.
            if snapshot is None or snapshot["revision"] != revision or snapshot["status"] == "queued":
                try:
                    snapshot = self.view(self.book.get(job_id)).model_dump(mode="json")
                except NotFound:
                    continue
            fresh[job_id] = snapshot
        self._snapshots = fresh
        return fresh


def _fingerprint(request: JobRequest) -> str:
    """Tell submissions apart by what was asked for, not by what defaults and settings make of it today."""
    asked = request.model_dump(mode="json")
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _config(values: dict[str, Any]) -> TrainConfig:
    try:
        return parse_config(values)
    except ConfigError as error:
        raise from_core(error, pointer="/config") from error


def _unknown(pointer: str, value: str, error: NotFound) -> UnprocessableError:
    place = {"pointer": pointer, "message": error.message, "value": value[:200]}
    return UnprocessableError(error.code, error.message, errors=[place])


def _check_fit(architecture: Architecture, dataset: Dataset, config: TrainConfig) -> None:
    """Plan the network as it will be trained; while the dataset is ingested its class count is not known."""
    num_classes: int | None = None
    if dataset.status is DatasetStatus.READY:
        num_classes = 1 if config.single_cls else dataset.num_classes
    try:
        plan = plan_text(
            architecture.text, source=architecture.name, num_classes=num_classes, imgsz=config.imgsz
        )
    except ArchitectureError as error:
        raise from_core(error, pointer="/architecture") from error
    if num_classes is not None and plan.num_classes != num_classes:
        message = f"the dataset has {num_classes} classes, the architecture ends in {plan.num_classes}"
        place = {"pointer": "/architecture", "message": message, "value": str(plan.num_classes)}
        raise UnprocessableError("CLASS_COUNT_MISMATCH", message, errors=[place])
    if plan.head_kind != "Detect":
        message = f"only detectors can be trained; this one ends in {plan.head_kind}"
        place = {"pointer": "/architecture", "message": message, "value": plan.head_kind}
        raise UnprocessableError("HEAD_NOT_TRAINABLE", message, errors=[place])
    try:
        check_fit(config, plan)
    except ConfigError as error:
        raise from_core(error, pointer="/config") from error
