"""What can be done with jobs: check a submission against its dataset and architecture, queue it, show it.

The rules of states and what a job waits for are the book's; this file adds what only the spec knows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api.access.principal import owner_filter
from api.architectures.service import plan_text
from api.domain.architectures import ArchitectureBook
from api.domain.datasets import DatasetBook
from api.domain.errors import NotFound
from api.domain.jobs import JobBook, Submitted
from api.domain.records import Architecture, Dataset, DatasetStatus, Job, JobStatus, NewJob, Page, Principal
from api.domain.settings import Settings
from api.domain.weights_records import Weights
from api.errors import ConflictError, UnprocessableError, from_core
from api.jobs.schemas import JobRequest, JobView, RerunRequest
from api.weights.service import WeightsService, check_start
from yolocore.errors import ArchitectureError, ConfigError
from yolocore.spec.config import TrainConfig, parse_config
from yolocore.spec.fit import check_fit
from yolocore.spec.plan import Plan

# Added when keys may already have been used: absent from a fingerprint unless they say something.
_LATER_FIELDS = ("priority", "max_runtime_s", "weights")
# Says how to submit, not what.
_MANNER = {"on_duplicate"}


@dataclass(frozen=True)
class Prepared:
    """A submission that was checked, with all it refers to; `plan` is the network as it will be trained."""

    new: NewJob
    config: TrainConfig
    dataset: Dataset
    architecture: Architecture
    plan: Plan
    weights: Weights | None


class JobService:
    """Jobs as one caller may see them; `book` has the questions that need no more than an owner."""

    def __init__(
        self,
        book: JobBook,
        datasets: DatasetBook,
        architectures: ArchitectureBook,
        weights: WeightsService,
        settings: Settings,
    ) -> None:
        self.book = book
        self._datasets = datasets
        self._architectures = architectures
        self._weights = weights
        self._settings = settings
        self._shown: dict[str, tuple[Job, dict[str, Any]]] = {}

    def submit(self, caller: Principal, request: JobRequest, *, key: str | None) -> Submitted:
        """Queue a job, at most once for a key: what was sent before gives its job, whatever changed since.

        Raises UnprocessableError with a pointer for what does not fit, Conflict for an invalid dataset or a
        key that was used for something else, LimitReached for an owner with too many queued jobs.
        """
        fingerprint = _fingerprint(request)
        known = self._known(caller.id, key, fingerprint)
        return known or self._submit(caller.id, request, None, key=key, fingerprint=fingerprint)

    def rerun(self, caller: Principal, job_id: str, edits: RerunRequest, *, key: str | None) -> Submitted:
        """Queue a job of the same owner that is like another but for the edits.

        Raises NotFound for a job that the caller cannot see, and else as `submit`.
        """
        fingerprint = _digest({"rerun": job_id, **edits.model_dump(mode="json", exclude_unset=True)})
        parent = self.book.get(job_id, owner_filter(caller))
        known = self._known(parent.owner, key, fingerprint)
        request = _edited(parent, edits)
        return known or self._submit(parent.owner, request, parent.id, key=key, fingerprint=fingerprint)

    def _known(self, owner: str, key: str | None, fingerprint: str) -> Submitted | None:
        if key is None or (job := self.book.submitted_as(owner, key, fingerprint)) is None:
            return None
        return Submitted(job, created=False)

    def _submit(
        self, owner: str, request: JobRequest, parent_id: str | None, *, key: str | None, fingerprint: str
    ) -> Submitted:
        new = self.prepare(owner, request, parent_id).new
        return self.book.submit(new, key=key, fingerprint=fingerprint, on_duplicate=request.on_duplicate)

    def prepare(self, owner: str, request: JobRequest, parent_id: str | None = None) -> Prepared:
        """Check a submission and return what would be queued; raises as `submit`."""
        config = _config(request.config)
        dataset = self._dataset(owner, request.dataset)
        architecture = self._architecture(owner, request.architecture)
        plan = _check_fit(architecture, dataset, config)
        weights = self._start(owner, request.weights, plan) if request.weights else None
        new = NewJob(
            owner=owner,
            dataset_id=dataset.id,
            architecture_id=architecture.id,
            config=config.model_dump(mode="json"),
            config_hash=config.config_hash(),
            name=request.name,
            tags=tuple(request.tags),
            queue=request.queue or self._settings.queue,
            priority=request.priority,
            parent_id=parent_id,
            max_runtime_s=request.max_runtime_s,
            weights_id=weights.id if weights is not None else None,
        )
        return Prepared(new, config, dataset, architecture, plan, weights)

    def _dataset(self, owner: str, dataset_id: str) -> Dataset:
        try:
            dataset = self._datasets.get(dataset_id, owner)
        except NotFound as error:
            raise _unknown("/dataset", dataset_id, error) from error
        if dataset.status is DatasetStatus.INVALID:
            raise ConflictError(
                "DATASET_INVALID",
                f"the dataset is invalid; /v1/datasets/{dataset.id}/problems tells why",
                errors=[{"pointer": "/dataset", "message": "the dataset is invalid", "value": dataset.id}],
            )
        if dataset.status is DatasetStatus.INSPECTED:
            raise ConflictError(
                "DATASET_NOT_CONFIRMED",
                f"the dataset was only looked at; POST /v1/datasets/{dataset.id}/confirm has it read",
                errors=[{"pointer": "/dataset", "message": "the dataset is inspected", "value": dataset.id}],
            )
        return dataset

    def _architecture(self, owner: str, architecture_id: str) -> Architecture:
        try:
            return self._architectures.get(architecture_id, owner)
        except NotFound as error:
            raise _unknown("/architecture", architecture_id, error) from error

    def _start(self, owner: str, wanted: str, plan: Plan) -> Weights:
        """Return the weights a job starts from, if its network takes anything from them."""
        try:
            weights = self._weights.find(owner, wanted)
        except NotFound as error:
            raise _unknown("/weights", wanted, error) from error
        check_start(self._weights.matched(weights, plan), weights)
        return weights

    def get(self, caller: Principal, job_id: str) -> JobView:
        """Return one; raises NotFound."""
        return self.view(self.book.get(job_id, owner_filter(caller)))

    def list(
        self,
        caller: Principal,
        *,
        status: Sequence[JobStatus],
        fingerprint: str | None = None,
        limit: int,
        cursor: str | None,
    ) -> Page[Job]:
        """Return jobs, newest first."""
        owner = owner_filter(caller)
        return self.book.list(owner, status=status, fingerprint=fingerprint, limit=limit, cursor=cursor)

    def view(self, job: Job) -> JobView:
        """Make the view of a row, with what it waits for."""
        return self.views([job])[0]

    def views(self, jobs: Sequence[Job]) -> Sequence[JobView]:
        """Make the views of rows; what they wait for is asked once for all."""
        return [JobView.of(job, reason) for job, reason in self.book.waiting(jobs)]

    def snapshot(self, caller: Principal, job_id: str) -> dict[str, Any]:
        """Return the JSON of one, as events carry it; raises NotFound."""
        return self.get(caller, job_id).model_dump(mode="json")

    def current_snapshots(self, job_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return the JSON of these jobs for the hub, which asks again and again for the same ones."""
        known, found = self._shown, self._current(job_ids)
        # What a queued job waits for changes with workers and other jobs, not with its own row.
        again = [
            job for job in found if known.get(job.id, (None,))[0] != job or job.status is JobStatus.QUEUED
        ]
        made = {view.id: view.model_dump(mode="json") for view in self.views(again)}
        self._shown = {job.id: (job, made[job.id] if job.id in made else known[job.id][1]) for job in found}
        return {job_id: snapshot for job_id, (_, snapshot) in self._shown.items()}

    def _current(self, job_ids: Sequence[str]) -> Sequence[Job]:
        """Return those of these jobs that exist, read again only where they changed."""
        found: list[Job] = []
        for job_id, revision in self.book.revisions(job_ids).items():
            known = self._shown.get(job_id)
            try:
                job = known[0] if known and known[0].revision == revision else self.book.get(job_id)
            except NotFound:
                continue
            found.append(job)
        return found


def _fingerprint(request: JobRequest) -> str:
    """Tell submissions apart by what was asked for, not by what defaults and settings make of it today."""
    asked = request.model_dump(mode="json", exclude=_MANNER)
    for name in _LATER_FIELDS:
        if asked[name] == JobRequest.model_fields[name].default:
            del asked[name]
    return _digest(asked)


def _digest(asked: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _edited(job: Job, edits: RerunRequest) -> JobRequest:
    """Return the submission that makes a job like this one but for the edits."""
    given = {key: value for key, value in edits.model_dump(exclude={"config"}).items() if value is not None}
    like = {
        "dataset": job.dataset_id,
        "architecture": job.architecture_id,
        "weights": job.weights_id,
        "name": job.name,
        "tags": list(job.tags),
        "queue": job.queue,
        "priority": job.priority,
        "max_runtime_s": job.max_runtime_s,
    }
    # Each part has been checked: of the job when it was submitted, of the edits just now.
    return JobRequest.model_construct(**{**like, **given, "config": _laid_over(job.config, edits.config)})


def _laid_over(config: Mapping[str, Any], edits: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with edits, section by section.

    The stored one names every hyperparameter, so that another preset would have no effect unless it replaced
    them all.
    """
    base = {key: value for key, value in config.items() if key != "hyp" or "preset" not in edits}
    for key, value in edits.items():
        before = base.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            value = {**before, **value}
        base[key] = value
    return base


def _config(values: dict[str, Any]) -> TrainConfig:
    try:
        return parse_config(values)
    except ConfigError as error:
        raise from_core(error, pointer="/config") from error


def _unknown(pointer: str, value: str, error: NotFound) -> UnprocessableError:
    place = {"pointer": pointer, "message": error.message, "value": value[:200]}
    return UnprocessableError(error.code, error.message, errors=[place])


def _check_fit(architecture: Architecture, dataset: Dataset, config: TrainConfig) -> Plan:
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
    return plan
