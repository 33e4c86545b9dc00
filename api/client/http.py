"""The blocking client: a method a request, errors as exceptions, uploads and downloads in constant memory."""

from __future__ import annotations

from pathlib import Path

from api.client import plans
from api.client.base import BaseClient, reaching
from api.client.bound import Blocking, BlockingPages
from api.client.errors import ApiError
from api.client.fetching import Download, artifact_path
from api.client.models import Artifact
from api.client.sending import file_sha256
from api.client.steps import CHUNK_BYTES, Progress


class Client(BaseClient):
    """Talks to one service with one token; use it in a `with` block.

    Every method raises UnreachableError when no answer comes, NotAllowedError for 401 and 403, and ApiError
    for any other refusal. What each asks and returns stands in `plans`.
    """

    push_dataset = Blocking(plans.push_dataset)
    confirm_dataset = Blocking(plans.confirm_dataset)
    retry_dataset = Blocking(plans.retry_dataset)
    dataset = Blocking(plans.dataset)
    datasets = BlockingPages(plans.datasets)
    delete_dataset = Blocking(plans.delete_dataset)
    wait_for_dataset = Blocking(plans.wait_for_dataset)
    dataset_problems = Blocking(plans.dataset_problems)
    diff_datasets = Blocking(plans.diff_datasets)

    push_architecture = Blocking(plans.push_architecture)
    public_architectures = Blocking(plans.public_architectures)
    check_architecture = Blocking(plans.check_architecture)
    diff_architectures = Blocking(plans.diff_architectures)

    submit = Blocking(plans.submit)
    submission = Blocking(plans.submission)
    check_job = Blocking(plans.check_job)
    probe_job = Blocking(plans.probe_job)
    probe = Blocking(plans.probe)
    cancel_probe = Blocking(plans.cancel_probe)
    rerun = Blocking(plans.rerun)
    job = Blocking(plans.job)
    jobs = BlockingPages(plans.jobs)
    cancel = Blocking(plans.cancel)
    stop = Blocking(plans.stop)
    pause = Blocking(plans.pause)
    activate = Blocking(plans.activate)
    edit = Blocking(plans.edit)
    delete_job = Blocking(plans.delete_job)
    attempts = Blocking(plans.attempts)
    wait_for_job = Blocking(plans.wait_for_job)
    metrics = Blocking(plans.metrics)
    artifacts = Blocking(plans.artifacts)

    workers = Blocking(plans.workers)
    queues = Blocking(plans.queues)
    clear_worker = Blocking(plans.clear_worker)

    push_weights = Blocking(plans.push_weights)
    weights = Blocking(plans.weights)
    all_weights = BlockingPages(plans.all_weights)
    delete_weights = Blocking(plans.delete_weights)
    weights_fit = Blocking(plans.weights_fit)
    wait_for_weights = Blocking(plans.wait_for_weights)

    def download(
        self, job_id: str, artifact: Artifact, target: Path, progress: Progress | None = None
    ) -> Path:
        """Fetch one artifact to `target`, checked against its SHA-256, appearing there by rename.

        Raises IntegrityError when other bytes arrive than were announced.
        """
        path = artifact_path(job_id, artifact)
        with self.stream(path) as response, Download(artifact, target, progress) as file:
            for chunk in response.iter_bytes(CHUNK_BYTES):
                file.write(chunk)
        return target


__all__ = ["ApiError", "Client", "Progress", "file_sha256", "reaching"]
