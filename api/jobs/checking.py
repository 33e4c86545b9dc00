"""What a submission would be, told without queueing it: all that is refused is refused here too.

Counts and bytes come from the plan and from the dataset's own figures; how long a batch takes only a worker
can say, which is not asked here.
"""

from __future__ import annotations

import math
from typing import Any

from pydantic import BaseModel, Field

from api.architectures.views import ArchitectureWarning
from api.domain import fingerprints
from api.domain.records import DatasetStatus, JobStatus, Principal
from api.jobs.schemas import JobRequest
from api.jobs.service import JobService, Prepared
from yolocore.spec.advice import DatasetFacts, advise
from yolocore.spec.config import AUTO_BATCH, TrainConfig
from yolocore.spec.memory import memory_of
from yolocore.spec.plan import Plan

# Weights, their gradients and their average; then what the optimizer remembers of each.
_COPIES, _REMEMBERED = 3, {"SGD": 1, "Adam": 2, "AdamW": 2}
_BYTES = 4


class CheckedDataset(BaseModel):
    """What is trained on; problems are those of its report."""

    id: str
    name: str
    status: DatasetStatus
    num_classes: int
    num_boxes: int
    splits: dict[str, int] = Field(description="Pictures of each.")
    num_errors: int
    num_warnings: int


class CheckedModel(BaseModel):
    """The network as it would be trained."""

    id: str
    name: str
    num_classes: int
    num_parameters: int
    gflops: float = Field(description="For one picture of the image size.")
    warnings: list[ArchitectureWarning] = Field(description="Of the model against the dataset.")


class CheckedMemory(BaseModel):
    """What training takes at the least in fp32, without the allocator's slack and the libraries' own."""

    batch: int = Field(description="For which batch; 1 where the run is to find the largest.")
    maps_bytes: int = Field(description="What a batch leaves for the backward pass.")
    weights_bytes: int = Field(description="Weights, gradients, average, and the optimizer's memory.")


class TwinView(BaseModel):
    """A job that is the same run."""

    id: str
    name: str
    status: JobStatus


class JobCheck(BaseModel):
    """A submission that would be accepted now."""

    dataset: CheckedDataset
    architecture: CheckedModel
    memory: CheckedMemory
    config: dict[str, Any]
    config_hash: str
    fingerprint: str
    identical: TwinView | None = Field(description="A job of yours that has succeeded or may yet.")
    queue: str
    workers: int = Field(description="Workers of its queue that live.")
    epochs: int
    batches_per_epoch: int | None = Field(description="Null while batch or dataset is not known.")
    val_batches_per_epoch: int | None


def check_job(jobs: JobService, caller: Principal, request: JobRequest) -> JobCheck:
    """Tell of a submission what is known before it is queued; raises as `JobService.submit`."""
    found = jobs.prepare(caller.id, request)
    dataset, config, new = found.dataset, found.config, found.new
    fingerprint = fingerprints.of_rows(
        {"manifest_hash": dataset.manifest_hash, "sha256": dataset.sha256},
        {"hash": found.architecture.hash},
        config_hash=new.config_hash,
        weights_sha256=found.weights.stored_sha256 if found.weights is not None else None,
    )
    twin = jobs.book.identical(caller.id, fingerprint)
    return JobCheck(
        dataset=CheckedDataset(
            id=dataset.id,
            name=dataset.name,
            status=dataset.status,
            num_classes=dataset.num_classes,
            num_boxes=dataset.num_boxes,
            splits=dict(dataset.splits),
            num_errors=dataset.num_errors,
            num_warnings=dataset.num_warnings,
        ),
        architecture=_model(found),
        memory=memory_needed(found.plan, config),
        config=dict(new.config),
        config_hash=new.config_hash,
        fingerprint=fingerprint,
        identical=TwinView(id=twin.id, name=twin.name, status=twin.status) if twin is not None else None,
        queue=new.queue,
        workers=next((state.slots for state in jobs.book.queues() if state.queue == new.queue), 0),
        epochs=config.epochs,
        batches_per_epoch=num_batches(dataset.splits.get("train"), config, training=True),
        val_batches_per_epoch=num_batches(dataset.splits.get("val"), config, training=False),
    )


def _model(found: Prepared) -> CheckedModel:
    plan, dataset = found.plan, found.dataset
    facts = None
    if dataset.statistics is not None:
        facts = DatasetFacts.of_statistics(dataset.num_classes, dataset.statistics)
    return CheckedModel(
        id=found.architecture.id,
        name=found.architecture.name,
        num_classes=plan.num_classes,
        num_parameters=plan.num_parameters,
        gflops=round(plan.gflops, 4),
        warnings=[
            ArchitectureWarning.model_validate(problem.as_dict())
            for problem in (*plan.warnings, *(advise(plan, facts) if facts is not None else ()))
        ],
    )


def memory_needed(plan: Plan, config: TrainConfig) -> CheckedMemory:
    """Return what a batch of a run takes, by the plan's size of pictures."""
    batch = 1 if config.batch == AUTO_BATCH else config.batch
    copies = _COPIES + _REMEMBERED[config.optimizer]
    return CheckedMemory(
        batch=batch,
        maps_bytes=memory_of(plan, batch).training_bytes,
        weights_bytes=_BYTES * copies * plan.num_parameters,
    )


def num_batches(num_pictures: int | None, config: TrainConfig, *, training: bool) -> int | None:
    """Return how many batches an epoch has; None where pictures or batch are not known yet."""
    if num_pictures is None or config.batch == AUTO_BATCH:
        return None
    if training and config.quad:
        # The last batch is left out if it is not full.
        return num_pictures // config.batch
    size = config.batch if training else config.val.batch or 2 * config.batch // config.world_size
    return math.ceil(num_pictures / max(1, size))
