"""Every request of the client, once: what is asked, how it is read, how long it is asked again.

Plans know no connection; `Client` carries them out at once, `AsyncClient` awaits them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from api.client.errors import NotEndedError
from api.client.models import (
    Architecture,
    Artifact,
    Attempt,
    Dataset,
    Job,
    Probe,
    Queue,
    Submission,
    Weights,
    Worker,
)
from api.client.patience import GIVE_UP_S, Patience, deadline_in, time_left
from api.client.sending import send_file
from api.client.steps import Pages, Plan, Progress, Rest, ask, one, parsed

S = TypeVar("S", Dataset, Weights)  # what has a status that ends by itself
_LONG_POLL_S = 20
_ANSWER_S = 30.0


def answer_timeout(deadline: float | None) -> httpx.Timeout:
    """Bound the wait for an answer by the deadline, with a little room for one that is on its way."""
    left = max(0.0, time_left(deadline)) + 0.5
    return httpx.Timeout(min(_ANSWER_S, left), connect=min(5.0, left))


# Datasets


def push_dataset(
    archive: Path,
    name: str,
    progress: Progress | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    give_up_s: float = GIVE_UP_S,
) -> Plan[Dataset]:
    """Upload an archive, or only name it where the service has it; returns while it is still checked.

    A large one goes in pieces, resumed where a line was cut; a small one without `options` as one body.
    """
    order: dict[str, Any] = {"name": name} | ({} if options is None else {"options": dict(options)})
    return (
        yield from send_file(
            Dataset, "/v1/datasets", archive, order, progress, as_body=options is None, give_up_s=give_up_s
        )
    )


def confirm_dataset(dataset_id: str, options: Mapping[str, Any] | None = None) -> Plan[Dataset]:
    """Have an archive read that was only looked at, by these options or as it was looked at."""
    body = {} if options is None else {"options": dict(options)}
    return (yield from one(Dataset, "POST", f"/v1/datasets/{dataset_id}/confirm", json=body))


def retry_dataset(dataset_id: str) -> Plan[Dataset]:
    """Have an archive looked into again at which the service, not the data, had failed."""
    return (yield from one(Dataset, "POST", f"/v1/datasets/{dataset_id}/retry"))


def dataset(dataset_id: str) -> Plan[Dataset]:
    """Return one dataset."""
    return (yield from one(Dataset, "GET", f"/v1/datasets/{dataset_id}"))


def datasets() -> Pages[Dataset]:
    """Yield all datasets, newest first."""
    return Pages(Dataset, "/v1/datasets", {})


def delete_dataset(dataset_id: str) -> Plan[None]:
    """Remove a dataset that no unfinished job needs."""
    yield from ask("DELETE", f"/v1/datasets/{dataset_id}")


def wait_for_dataset(
    dataset_id: str, *, timeout_s: float | None = None, give_up_s: float = GIVE_UP_S
) -> Plan[Dataset]:
    """Ask until the dataset is ready or invalid; raise TimeoutError after `timeout_s`.

    A service that goes away is asked again for `give_up_s` seconds.
    """
    path = f"/v1/datasets/{dataset_id}"
    late = f"{dataset_id} is still being checked after"
    return (yield from _settled(Dataset, path, "ingesting", late, timeout_s, give_up_s))


def dataset_problems(dataset_id: str) -> Plan[list[dict[str, Any]]]:
    """Return what the check found, errors first."""
    found: list[dict[str, Any]] = (yield from ask("GET", f"/v1/datasets/{dataset_id}/problems")).json()[
        "items"
    ]
    return found


def diff_datasets(dataset_id: str, other_id: str) -> Plan[dict[str, Any]]:
    """Return what another ready dataset has more, less or otherwise: images, splits, boxes, classes."""
    found: dict[str, Any] = (
        yield from ask("GET", f"/v1/datasets/{dataset_id}/diff", params={"other": other_id})
    ).json()
    return found


# Architectures


def push_architecture(text: str, name: str) -> Plan[Architecture]:
    """Store a model YAML."""
    headers = {"Content-Type": "application/yaml"}
    response = yield from ask(
        "POST", "/v1/architectures", params={"name": name}, headers=headers, content=text.encode()
    )
    return parsed(Architecture, response)


def public_architectures() -> Plan[dict[str, str]]:
    """Return the texts of YOLOv5's public model files by name."""
    items = (yield from ask("GET", "/v1/architectures/public")).json()["items"]
    return {item["name"]: item["text"] for item in items}


def check_architecture(
    text: str,
    num_classes: int | None = None,
    *,
    imgsz: int | None = None,
    batch: int | None = None,
    dataset: str | None = None,
) -> Plan[dict[str, Any]]:
    """Check a model YAML without storing it and return its plan, by the service's defaults for None.

    `imgsz` in pixels; `dataset` is the id of one whose classes and boxes the model is held against.
    """
    asked = {"num_classes": num_classes, "imgsz": imgsz, "batch": batch, "dataset": dataset}
    params = {key: value for key, value in asked.items() if value is not None}
    headers = {"Content-Type": "application/yaml"}
    found: dict[str, Any] = (
        yield from ask(
            "POST", "/v1/architectures/check", params=params, headers=headers, content=text.encode()
        )
    ).json()
    return found


def diff_architectures(architecture_id: str, other: str, imgsz: int = 640) -> Plan[dict[str, Any]]:
    """Return where another architecture, by id or public name, differs at an image size in pixels."""
    params = {"other": other, "imgsz": imgsz}
    found: dict[str, Any] = (
        yield from ask("GET", f"/v1/architectures/{architecture_id}/diff", params=params)
    ).json()
    return found


# Jobs


def submit(job: Mapping[str, Any], *, idempotency_key: str | None = None) -> Plan[Job]:
    """Queue a job: {"dataset", "architecture", "config"?, "name"?, "tags"?, "queue"?, "priority"?}.

    `on_duplicate` among them says what becomes of a run that is there already: new, reuse, refuse.
    """
    return (yield from submission(job, idempotency_key=idempotency_key)).job


def submission(job: Mapping[str, Any], *, idempotency_key: str | None = None) -> Plan[Submission]:
    """Submit as `submit`, and tell whether the job was there before."""
    return (yield from _submit("/v1/jobs", job, idempotency_key))


def check_job(job: Mapping[str, Any]) -> Plan[dict[str, Any]]:
    """Return what a submission (as of `submit`) would be, without queueing it; raises as `submit`."""
    found: dict[str, Any] = (yield from ask("POST", "/v1/jobs/check", json=dict(job))).json()
    return found


def probe_job(job: Mapping[str, Any]) -> Plan[Probe]:
    """Have a worker time a few batches of a submission (as of `submit`); returns before it does."""
    return (yield from one(Probe, "POST", "/v1/jobs/probe", json=dict(job)))


def probe(probe_id: str) -> Plan[Probe]:
    """Return a probe as it stands."""
    return (yield from one(Probe, "GET", f"/v1/probes/{probe_id}"))


def cancel_probe(probe_id: str) -> Plan[None]:
    """Have a probe not measured, or no longer."""
    yield from ask("DELETE", f"/v1/probes/{probe_id}")


def rerun(
    job_id: str, edits: Mapping[str, Any] | None = None, *, idempotency_key: str | None = None
) -> Plan[Job]:
    """Queue a job like another but for the edits, keys as of `submit`; its `parent` is that other."""
    return (yield from _submit(f"/v1/jobs/{job_id}/rerun", edits or {}, idempotency_key)).job


def _submit(path: str, body: Mapping[str, Any], key: str | None) -> Plan[Submission]:
    headers = {"Idempotency-Key": key} if key else {}
    answer = yield from ask("POST", path, json=dict(body), headers=headers)
    was_there = {"Idempotent-Replayed", "Run-Reused"}
    return Submission(parsed(Job, answer), any(answer.headers.get(name) == "true" for name in was_there))


def job(job_id: str) -> Plan[Job]:
    """Return one job."""
    return (yield from one(Job, "GET", f"/v1/jobs/{job_id}"))


def jobs(*, status: str | None = None, fingerprint: str | None = None, limit: int = 50) -> Pages[Job]:
    """Yield jobs, newest first; `limit` is the size of a page."""
    asked = {"status": status, "fingerprint": fingerprint}
    params = {"limit": limit} | {key: value for key, value in asked.items() if value}
    return Pages(Job, "/v1/jobs", params)


def cancel(job_id: str) -> Plan[Job]:
    """Ask for the end of a job; a running one answers before it has ended."""
    return (yield from _wish(job_id, "cancel"))


def stop(job_id: str) -> Plan[Job]:
    """Ask for the end of a job that keeps its best so far; answers as `cancel`."""
    return (yield from _wish(job_id, "stop"))


def pause(job_id: str) -> Plan[Job]:
    """Ask a job to write a checkpoint and give its place back; answers as `cancel`."""
    return (yield from _wish(job_id, "pause"))


def activate(job_id: str) -> Plan[Job]:
    """Queue a paused job again, or end the wait of one before its retry."""
    return (yield from _wish(job_id, "activate"))


def _wish(job_id: str, verb: str) -> Plan[Job]:
    return (yield from one(Job, "POST", f"/v1/jobs/{job_id}/{verb}"))


def edit(job_id: str, edits: Mapping[str, Any], *, revision: int | None = None) -> Plan[Job]:
    """Change {"name"?, "tags"?, "priority"?} of a job that has not ended.

    With a revision only as long as the job still has it: ApiError 412 if not.
    """
    headers = {"If-Match": "*" if revision is None else f'"{revision}"'}
    return (yield from one(Job, "PATCH", f"/v1/jobs/{job_id}", json=dict(edits), headers=headers))


def delete_job(job_id: str) -> Plan[None]:
    """Remove a job that has ended, with all it left."""
    yield from ask("DELETE", f"/v1/jobs/{job_id}")


def attempts(job_id: str) -> Plan[list[Attempt]]:
    """Return the attempts at a job, oldest first."""
    return (yield from Pages(Attempt, f"/v1/jobs/{job_id}/attempts", {}).everything())


def wait_for_job(job_id: str, *, timeout_s: float | None = None, give_up_s: float = GIVE_UP_S) -> Plan[Job]:
    """Long-poll until the job has ended; raise NotEndedError after `timeout_s`.

    A service that goes away is asked again for `give_up_s` seconds.
    """
    deadline = deadline_in(timeout_s)
    patience = Patience(give_up_s)
    found: Job | None = None
    while True:
        with patience.with_failures():
            found = yield from _job_within(job_id, deadline)
            if found.is_final:
                return found
            patience.renew()
        if time_left(deadline) <= 0:
            raise NotEndedError(job_id, found)
        yield Rest(patience.next_pause_s(deadline))


def _job_within(job_id: str, deadline: float | None) -> Plan[Job]:
    """Return the job when it has ended, or else somewhat before the deadline."""
    wait_s = int(min(_LONG_POLL_S, time_left(deadline)))
    headers = {"Prefer": f"wait={wait_s}"} if wait_s > 0 else {}
    timeout = answer_timeout(deadline)
    return (yield from one(Job, "GET", f"/v1/jobs/{job_id}", headers=headers, timeout=timeout))


def metrics(job_id: str) -> Plan[list[dict[str, Any]]]:
    """Return the rows of all finished epochs."""
    found: list[dict[str, Any]] = (yield from ask("GET", f"/v1/jobs/{job_id}/metrics")).json()["items"]
    return found


# Fleet


def workers() -> Plan[list[Worker]]:
    """Return the workers, also those that were lost a while ago."""
    return (yield from Pages(Worker, "/v1/workers", {}).everything())


def queues() -> Plan[list[Queue]]:
    """Return the queues of jobs that have work or workers."""
    return (yield from Pages(Queue, "/v1/queues", {}).everything())


def clear_worker(worker_id: str) -> Plan[Worker]:
    """Let an unhealthy worker take work again; for administrators."""
    return (yield from one(Worker, "POST", f"/v1/workers/{quote(worker_id)}/clear"))


# Weights


def push_weights(
    file: Path, name: str, progress: Progress | None = None, *, give_up_s: float = GIVE_UP_S
) -> Plan[Weights]:
    """Upload a checkpoint, or only name it where the service has it; returns while it is still read."""
    order = {"name": name, "file_name": file.name}
    return (
        yield from send_file(Weights, "/v1/weights", file, order, progress, as_body=True, give_up_s=give_up_s)
    )


def weights(weights_id: str) -> Plan[Weights]:
    """Return weights with the report of their import."""
    return (yield from one(Weights, "GET", f"/v1/weights/{weights_id}"))


def all_weights() -> Pages[Weights]:
    """Yield all weights, newest first."""
    return Pages(Weights, "/v1/weights", {})


def delete_weights(weights_id: str) -> Plan[None]:
    """Remove weights that no unfinished job needs."""
    yield from ask("DELETE", f"/v1/weights/{weights_id}")


def weights_fit(weights_id: str, architecture: str, num_classes: int | None = None) -> Plan[dict[str, Any]]:
    """Return which tensors an architecture (id or public name) takes from weights, and which not."""
    params = {"architecture": architecture}
    params |= {} if num_classes is None else {"num_classes": str(num_classes)}
    found: dict[str, Any] = (yield from ask("GET", f"/v1/weights/{weights_id}/fit", params=params)).json()
    return found


def wait_for_weights(
    weights_id: str, *, timeout_s: float | None = None, give_up_s: float = GIVE_UP_S
) -> Plan[Weights]:
    """Ask until weights are ready or not; raise TimeoutError after `timeout_s`.

    A service that goes away is asked again for `give_up_s` seconds.
    """
    path = f"/v1/weights/{weights_id}"
    late = f"{weights_id} are still being read after"
    return (yield from _settled(Weights, path, "importing", late, timeout_s, give_up_s))


def _settled(
    kind: type[S], path: str, busy: str, late: str, timeout_s: float | None, give_up_s: float
) -> Plan[S]:
    """Ask for a thing until its status is not `busy` any more."""
    deadline = deadline_in(timeout_s)
    patience = Patience(give_up_s)
    while True:
        with patience.with_failures():
            found = yield from one(kind, "GET", path, timeout=answer_timeout(deadline))
            if found.status != busy:
                return found
            patience.renew()
        if time_left(deadline) <= 0:
            raise TimeoutError(f"{late} {timeout_s:g} s")
        yield Rest(patience.next_pause_s(deadline))


# Artifacts


def artifacts(job_id: str) -> Plan[list[Artifact]]:
    """Return what a job left."""
    return (yield from Pages(Artifact, f"/v1/jobs/{job_id}/artifacts").everything())
