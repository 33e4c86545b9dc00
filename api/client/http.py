"""The client itself: one method a request, errors as exceptions, uploads and downloads in constant memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from api.client.base import Progress, answer_timeout, file_sha256, reaching
from api.client.errors import ApiError, IntegrityError, NotEndedError
from api.client.models import Architecture, Artifact, Attempt, Dataset, Job, Probe, Queue, Submission, Worker
from api.client.patience import GIVE_UP_S, Patience, deadline_in, time_left
from api.client.weights import WeightsClient

_CHUNK_BYTES = 1 << 18
_LONG_POLL_S = 20


class Client(WeightsClient):
    """Talks to one service with one token; use it in a `with` block.

    Every method raises UnreachableError when no answer comes, NotAllowedError for 401 and 403, and ApiError
    for any other refusal.
    """

    # Datasets

    def push_dataset(
        self,
        archive: Path,
        name: str,
        progress: Progress | None = None,
        *,
        options: Mapping[str, Any] | None = None,
        give_up_s: float = GIVE_UP_S,
    ) -> Dataset:
        """Upload an archive, or only name it where the service has it; returns while it is still checked.

        A large one goes in pieces, resumed where a line was cut; a small one without `options` as one body.
        """
        order: dict[str, Any] = {"name": name} | ({} if options is None else {"options": dict(options)})
        return self._send_file(
            Dataset, "/v1/datasets", archive, order, progress, as_body=options is None, give_up_s=give_up_s
        )

    def confirm_dataset(self, dataset_id: str, options: Mapping[str, Any] | None = None) -> Dataset:
        """Have an archive read that was only looked at, by these options or as it was looked at."""
        body = {} if options is None else {"options": dict(options)}
        return self._one(Dataset, self.request("POST", f"/v1/datasets/{dataset_id}/confirm", json=body))

    def retry_dataset(self, dataset_id: str) -> Dataset:
        """Have an archive looked into again at which the service, not the data, had failed."""
        return self._one(Dataset, self.request("POST", f"/v1/datasets/{dataset_id}/retry"))

    def dataset(self, dataset_id: str) -> Dataset:
        """Return one dataset."""
        return self._one(Dataset, self.request("GET", f"/v1/datasets/{dataset_id}"))

    def datasets(self) -> Iterator[Dataset]:
        """Yield all datasets, newest first."""
        return self._many(Dataset, "/v1/datasets", {})

    def delete_dataset(self, dataset_id: str) -> None:
        """Remove a dataset that no unfinished job needs."""
        self.request("DELETE", f"/v1/datasets/{dataset_id}")

    def wait_for_dataset(
        self, dataset_id: str, *, timeout_s: float | None = None, give_up_s: float = GIVE_UP_S
    ) -> Dataset:
        """Ask until the dataset is ready or invalid; raise TimeoutError after `timeout_s`.

        A service that goes away is asked again for `give_up_s` seconds.
        """
        deadline = deadline_in(timeout_s)
        patience = Patience(give_up_s)
        while True:
            with patience.with_failures():
                timeout = answer_timeout(deadline)
                found = self._one(Dataset, self.request("GET", f"/v1/datasets/{dataset_id}", timeout=timeout))
                if found.status != "ingesting":
                    return found
                patience.renew()
            if time_left(deadline) <= 0:
                raise TimeoutError(f"{dataset_id} is still being checked after {timeout_s:g} s")
            patience.pause(deadline)

    def dataset_problems(self, dataset_id: str) -> list[dict[str, Any]]:
        """Return what the check found, errors first."""
        found: list[dict[str, Any]] = self.request("GET", f"/v1/datasets/{dataset_id}/problems").json()[
            "items"
        ]
        return found

    def diff_datasets(self, dataset_id: str, other_id: str) -> dict[str, Any]:
        """Return what another ready dataset has more, less or otherwise: images, splits, boxes, classes."""
        found: dict[str, Any] = self.request(
            "GET", f"/v1/datasets/{dataset_id}/diff", params={"other": other_id}
        ).json()
        return found

    # Architectures

    def push_architecture(self, text: str, name: str) -> Architecture:
        """Store a model YAML."""
        headers = {"Content-Type": "application/yaml"}
        response = self.request(
            "POST", "/v1/architectures", params={"name": name}, headers=headers, content=text.encode()
        )
        return self._one(Architecture, response)

    def public_architectures(self) -> dict[str, str]:
        """Return the texts of YOLOv5's public model files by name."""
        items = self.request("GET", "/v1/architectures/public").json()["items"]
        return {item["name"]: item["text"] for item in items}

    def check_architecture(
        self,
        text: str,
        num_classes: int | None = None,
        *,
        imgsz: int | None = None,
        batch: int | None = None,
        dataset: str | None = None,
    ) -> dict[str, Any]:
        """Check a model YAML without storing it and return its plan, by the service's defaults for None.

        `imgsz` in pixels; `dataset` is the id of one whose classes and boxes the model is held against.
        """
        asked = {"num_classes": num_classes, "imgsz": imgsz, "batch": batch, "dataset": dataset}
        params = {key: value for key, value in asked.items() if value is not None}
        headers = {"Content-Type": "application/yaml"}
        found: dict[str, Any] = self.request(
            "POST", "/v1/architectures/check", params=params, headers=headers, content=text.encode()
        ).json()
        return found

    def diff_architectures(self, architecture_id: str, other: str, imgsz: int = 640) -> dict[str, Any]:
        """Return where another architecture, by id or public name, differs at an image size in pixels."""
        params = {"other": other, "imgsz": imgsz}
        found: dict[str, Any] = self.request(
            "GET", f"/v1/architectures/{architecture_id}/diff", params=params
        ).json()
        return found

    # Jobs

    def submit(self, job: Mapping[str, Any], *, idempotency_key: str | None = None) -> Job:
        """Queue a job: {"dataset", "architecture", "config"?, "name"?, "tags"?, "queue"?, "priority"?}.

        `on_duplicate` among them says what becomes of a run that is there already: new, reuse, refuse.
        """
        return self.submission(job, idempotency_key=idempotency_key).job

    def submission(self, job: Mapping[str, Any], *, idempotency_key: str | None = None) -> Submission:
        """Submit as `submit`, and tell whether the job was there before."""
        return self._submit("/v1/jobs", job, idempotency_key)

    def check_job(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a submission (as of `submit`) would be, without queueing it; raises as `submit`."""
        found: dict[str, Any] = self.request("POST", "/v1/jobs/check", json=dict(job)).json()
        return found

    def probe_job(self, job: Mapping[str, Any]) -> Probe:
        """Have a worker time a few batches of a submission (as of `submit`); returns before it does."""
        return self._one(Probe, self.request("POST", "/v1/jobs/probe", json=dict(job)))

    def probe(self, probe_id: str) -> Probe:
        """Return a probe as it stands."""
        return self._one(Probe, self.request("GET", f"/v1/probes/{probe_id}"))

    def cancel_probe(self, probe_id: str) -> None:
        """Have a probe not measured, or no longer."""
        self.request("DELETE", f"/v1/probes/{probe_id}")

    def rerun(
        self, job_id: str, edits: Mapping[str, Any] | None = None, *, idempotency_key: str | None = None
    ) -> Job:
        """Queue a job like another but for the edits, keys as of `submit`; its `parent` is that other."""
        return self._submit(f"/v1/jobs/{job_id}/rerun", edits or {}, idempotency_key).job

    def _submit(self, path: str, body: Mapping[str, Any], key: str | None) -> Submission:
        headers = {"Idempotency-Key": key} if key else {}
        answer = self.request("POST", path, json=dict(body), headers=headers)
        was_there = {"Idempotent-Replayed", "Run-Reused"}
        return Submission(
            self._one(Job, answer), any(answer.headers.get(name) == "true" for name in was_there)
        )

    def job(self, job_id: str) -> Job:
        """Return one job."""
        return self._one(Job, self.request("GET", f"/v1/jobs/{job_id}"))

    def jobs(
        self, *, status: str | None = None, fingerprint: str | None = None, limit: int = 50
    ) -> Iterator[Job]:
        """Yield jobs, newest first; `limit` is the size of a page."""
        asked = {"status": status, "fingerprint": fingerprint}
        params = {"limit": limit} | {key: value for key, value in asked.items() if value}
        return self._many(Job, "/v1/jobs", params)

    def cancel(self, job_id: str) -> Job:
        """Ask for the end of a job; a running one answers before it has ended."""
        return self._wish(job_id, "cancel")

    def stop(self, job_id: str) -> Job:
        """Ask for the end of a job that keeps its best so far; answers as `cancel`."""
        return self._wish(job_id, "stop")

    def pause(self, job_id: str) -> Job:
        """Ask a job to write a checkpoint and give its place back; answers as `cancel`."""
        return self._wish(job_id, "pause")

    def activate(self, job_id: str) -> Job:
        """Queue a paused job again, or end the wait of one before its retry."""
        return self._wish(job_id, "activate")

    def _wish(self, job_id: str, verb: str) -> Job:
        return self._one(Job, self.request("POST", f"/v1/jobs/{job_id}/{verb}"))

    def edit(self, job_id: str, edits: Mapping[str, Any], *, revision: int | None = None) -> Job:
        """Change {"name"?, "tags"?, "priority"?} of a job that has not ended.

        With a revision only as long as the job still has it: ApiError 412 if not.
        """
        headers = {"If-Match": "*" if revision is None else f'"{revision}"'}
        return self._one(Job, self.request("PATCH", f"/v1/jobs/{job_id}", json=dict(edits), headers=headers))

    def delete_job(self, job_id: str) -> None:
        """Remove a job that has ended, with all it left."""
        self.request("DELETE", f"/v1/jobs/{job_id}")

    def attempts(self, job_id: str) -> list[Attempt]:
        """Return the attempts at a job, oldest first."""
        return list(self._many(Attempt, f"/v1/jobs/{job_id}/attempts", {}))

    def wait_for_job(
        self, job_id: str, *, timeout_s: float | None = None, give_up_s: float = GIVE_UP_S
    ) -> Job:
        """Long-poll until the job has ended; raise NotEndedError after `timeout_s`.

        A service that goes away is asked again for `give_up_s` seconds.
        """
        deadline = deadline_in(timeout_s)
        patience = Patience(give_up_s)
        found: Job | None = None
        while True:
            with patience.with_failures():
                found = self._job_within(job_id, deadline)
                if found.is_final:
                    return found
                patience.renew()
            if time_left(deadline) <= 0:
                raise NotEndedError(job_id, found)
            patience.pause(deadline)

    def _job_within(self, job_id: str, deadline: float | None) -> Job:
        """Return the job when it has ended, or else somewhat before the deadline."""
        wait_s = int(min(_LONG_POLL_S, time_left(deadline)))
        headers = {"Prefer": f"wait={wait_s}"} if wait_s > 0 else {}
        timeout = answer_timeout(deadline)
        return self._one(Job, self.request("GET", f"/v1/jobs/{job_id}", headers=headers, timeout=timeout))

    def metrics(self, job_id: str) -> list[dict[str, Any]]:
        """Return the rows of all finished epochs."""
        found: list[dict[str, Any]] = self.request("GET", f"/v1/jobs/{job_id}/metrics").json()["items"]
        return found

    # Fleet

    def workers(self) -> list[Worker]:
        """Return the workers, also those that were lost a while ago."""
        return list(self._many(Worker, "/v1/workers", {}))

    def queues(self) -> list[Queue]:
        """Return the queues of jobs that have work or workers."""
        return list(self._many(Queue, "/v1/queues", {}))

    def clear_worker(self, worker_id: str) -> Worker:
        """Let an unhealthy worker take work again; for administrators."""
        return self._one(Worker, self.request("POST", f"/v1/workers/{quote(worker_id)}/clear"))

    # Artifacts

    def artifacts(self, job_id: str) -> list[Artifact]:
        """Return what a job left."""
        return list(self._many(Artifact, f"/v1/jobs/{job_id}/artifacts", {}))

    def download(
        self, job_id: str, artifact: Artifact, target: Path, progress: Progress | None = None
    ) -> Path:
        """Fetch one artifact to `target`, checked against its SHA-256, appearing there by rename.

        Raises IntegrityError when other bytes arrive than were announced.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.part")
        digest = hashlib.sha256()
        done = 0
        try:
            with (
                self.stream(f"/v1/jobs/{job_id}/artifacts/{artifact.name}") as response,
                temporary.open("wb") as file,
            ):
                for chunk in response.iter_bytes(_CHUNK_BYTES):
                    file.write(chunk)
                    digest.update(chunk)
                    done += len(chunk)
                    if progress is not None:
                        progress(done, artifact.size_bytes)
            if digest.hexdigest() != artifact.sha256:
                raise IntegrityError(
                    f"{artifact.name}: the downloaded bytes are not those that were announced"
                )
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        return target


__all__ = ["ApiError", "Client", "Progress", "file_sha256", "reaching"]
