"""The folder of one attempt: what the child is told, and where its files lie.

It must not know how the child is started or watched.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from api.domain.blobs import BlobStore
from api.domain.records import Claim, Pointer
from api.domain.settings import Settings
from worker.cache import DatasetFiles
from worker.ladder import write_json

CONFIG_VERSION = 1


class MissingCheckpointError(Exception):
    """The checkpoint a job goes on from is not where its pointer says, or is not the same any more."""


class AttemptFolder:
    """Paths in `data/jobs/<id>/attempts/<n>/`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = path / "events.jsonl"
        self.log = path / "train.log"
        self.result = path / "result.json"

    @property
    def job_folder(self) -> Path:
        """The folder pointers are relative to."""
        return self.path.parent.parent

    def in_job(self, name: str) -> str:
        """Return a path of this attempt as a pointer names it."""
        return (self.path / name).relative_to(self.job_folder).as_posix()


def resume_section(pointer: Pointer | None, job_folder: Path) -> dict[str, Any] | None:
    """Return what the child needs to go on from a pointer; raises MissingCheckpointError."""
    if pointer is None:
        return None
    checkpoint = job_folder / pointer.path
    if not checkpoint.is_file():
        raise MissingCheckpointError(f"checkpoint {pointer.path} is gone")
    with checkpoint.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != pointer.sha256:
            raise MissingCheckpointError(f"checkpoint {pointer.path} is damaged")
    return {
        "checkpoint": str(checkpoint),
        "epoch": pointer.epoch,
        "batch": pointer.batch,
        "after": pointer.after,
    }


def child_config(
    claim: Claim, files: DatasetFiles, settings: Settings, *, device: str, resume: dict[str, Any] | None
) -> dict[str, Any]:
    """Return the whole of config.json: the run's config, inputs as absolute paths, settings."""
    return {
        "v": CONFIG_VERSION,
        "job": claim.job.id,
        "attempt": claim.attempt,
        "config": dict(claim.job.config),
        "architecture": {"name": claim.architecture.name, "text": claim.architecture.text},
        "dataset": {"manifest": str(files.manifest), "images_root": str(files.images_root)},
        "weights": _weights(claim, settings),
        "resume": resume,
        "settings": {
            "device": device,
            "loader_threads": settings.loader_threads,
            "threads": settings.train_threads,
            "cache": settings.cache,
            "cache_dir": str(files.cache_dir),
            "checkpoint_every_s": settings.checkpoint_every_s,
        },
    }


def _weights(claim: Claim, settings: Settings) -> str | None:
    """Return where the weights lie that a run starts from, by their content."""
    sha256 = claim.job.weights_sha256
    return None if sha256 is None else str(BlobStore(settings.blobs_dir).path(sha256))


def write_config(folder: AttemptFolder, config: dict[str, Any]) -> None:
    """Make the folder and write config.json into it; raises FileExistsError if it is there."""
    folder.path.mkdir(parents=True)
    write_json(folder.path / "config.json", config)
