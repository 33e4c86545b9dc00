"""Weights over HTTP: what is refused at once, what is told of an import, and jobs that start from them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.domain.blobs import BlobStore
from api.domain.failures import Failure, FailureCode
from api.domain.records import Job
from api.domain.tasks import TaskBook
from api.domain.weights_records import WeighingResult, WeightsStatus
from tests.support.service import World, a_dataset, an_architecture, client_of, model_text, new_world
from worker.attempt import child_config
from worker.cache import DatasetFiles
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.plan import plan_architecture

FILE = b"PK\x03\x04 a checkpoint"
OLD = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
REFUSED = {
    "empty": (b"", 422, "CHECKPOINT_EMPTY"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\n", 415, "CHECKPOINT_LFS_POINTER"),
    "page": (b"\n<!DOCTYPE html><html>", 415, "CHECKPOINT_HTML"),
    "old": (OLD + bytes(600), 422, "CHECKPOINT_OLD_FORMAT"),
    "foreign": (b"\x89PNG", 415, "CHECKPOINT_FOREIGN"),
}


def put(client: httpx.Client, name: str = "mine", content: bytes = FILE) -> httpx.Response:
    return client.put("/v1/weights", params={"name": name, "file_name": "best.pt"}, content=content)


def read(world: World, **changes: Any) -> str:
    """Play the import of the file that waits; return the digest of the file it leaves."""
    plan = plan_architecture(parse_architecture(model_text(2)))
    tensors = [{"name": name, "shape": list(shape), "dtype": "float32"} for name, shape in plan.state_entries]
    report = {"v": 1, "problems": [], "tensors": tensors, "not_finite": [], **changes}
    blobs, tasks = BlobStore(world.settings.blobs_dir), TaskBook(world.store, world.settings)
    stored = blobs.put_bytes(b"safe")
    task = tasks.claim("ingest", "test")
    assert task is not None and task.kind == "weights"
    result = WeighingResult(
        WeightsStatus.READY,
        blobs.put_bytes(json.dumps(report).encode()).sha256,
        stored_sha256=stored.sha256,
        stored_bytes=stored.size_bytes,
        num_classes=2,
        classes=("a", "b"),
        num_tensors=len(report["tensors"]),
        provenance={"file_name": task.payload["file_name"]},
    )
    tasks.finish_weights(task.id, task.attempt, result)
    return stored.sha256


def ready(world: World, client: httpx.Client, name: str = "mine", **changes: Any) -> str:
    answer = put(client, name, FILE + name.encode())
    assert answer.status_code == 202, answer.text
    read(world, **changes)
    return str(answer.json()["id"])


def order(world: World, client: httpx.Client, **more: Any) -> dict[str, Any]:
    return {"dataset": a_dataset(world, client), "architecture": an_architecture(client), **more}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_weights_is_refused_by_its_first_bytes(
    world: World, client: httpx.Client, kind: str
) -> None:
    content, status, code = REFUSED[kind]
    answer = put(client, content=content)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert world.files() == []


@pytest.mark.usefixtures("books_in")
def test_a_file_over_the_limit_or_the_quota_is_refused(tmp_path: Path) -> None:
    limits = {"max_weights_bytes": 30, "max_dataset_bytes_per_owner": 35}
    with new_world(tmp_path, **limits) as world, client_of(world) as client:
        answer = put(client, content=FILE + bytes(30))
        assert (answer.status_code, answer.json()["code"]) == (413, "CONTENT_TOO_LARGE")
        assert world.files() == []
        assert put(client).status_code == 202
        assert put(client, "more", FILE + b"more").json()["code"] == "QUOTA_EXCEEDED"
        assert put(client, "again").status_code == 202, "the same bytes cost nothing"


def test_weights_are_imported_listed_explained_and_deleted(world: World, client: httpx.Client) -> None:
    made = put(client)
    assert made.status_code == 202 and made.json()["status"] == "importing"
    path = made.headers["location"]
    assert client.get(path).json()["report"] is None
    assert put(client).json()["id"] == made.json()["id"]
    assert put(client, content=FILE + b"other").json()["code"] == "NAME_TAKEN"
    assert client.get(f"{path}/fit").json()["code"] == "WEIGHTS_NOT_READY"
    stored = read(world)
    found = client.get(path).json()
    assert (found["status"], found["file_name"], found["stored_sha256"]) == ("ready", "best.pt", stored)
    assert found["provenance"] == {"file_name": "best.pt"} and len(found["report"]["tensors"]) > 300
    assert [item["id"] for item in client.get("/v1/weights").json()["items"]] == [found["id"]]
    other = world.other_user()
    for method, target in (("GET", path), ("GET", f"{path}/fit"), ("DELETE", path)):
        assert client.request(method, target, headers=other).json()["code"] == "WEIGHTS_NOT_FOUND"
    assert client.get("/v1/weights", headers=other).json()["items"] == []
    assert client.delete(path).status_code == 204
    assert client.get(path).status_code == 404
    assert put(client).json()["id"] != found["id"]


def test_bytes_that_are_here_are_ordered_by_digest(world: World, client: httpx.Client) -> None:
    put(client)
    digest = hashlib.sha256(FILE).hexdigest()
    again = client.post("/v1/weights", json={"name": "again", "sha256": digest})
    assert again.status_code == 202 and again.json()["sha256"] == digest
    unknown = client.post("/v1/weights", json={"name": "again", "sha256": "0" * 64})
    assert unknown.json()["code"] == "CONTENT_UNKNOWN"
    theirs = client.post("/v1/weights", json={"name": "x", "sha256": digest}, headers=world.other_user())
    assert theirs.json()["code"] == "CONTENT_UNKNOWN"


def test_a_fit_names_what_is_taken_and_what_is_not(world: World, client: httpx.Client) -> None:
    path = f"/v1/weights/{ready(world, client, not_finite=['model.0.conv.weight'])}/fit"
    same = client.get(path, params={"num_classes": 2}).json()
    reasons = {item["name"]: item["reason"] for item in same["left_out"]}
    assert reasons == {"model.0.conv.weight": "not finite", "model.24.anchors": "anchors are the model's"}
    assert same["usable"] and len(same["taken"]) == same["total"] - 2
    other = client.get(path, params={"num_classes": 3}).json()
    (head,) = [item for item in other["left_out"] if item["name"] == "model.24.m.0.weight"]
    assert (head["reason"], head["given"][0], head["wanted"][0]) == ("shape", 21, 24)
    assert client.get(path, params={"architecture": "nothing"}).status_code == 404


def test_a_job_starts_from_weights_and_so_does_its_rerun(world: World, client: httpx.Client) -> None:
    weights_id = ready(world, client)
    body = order(world, client, weights="mine")
    key = {"Idempotency-Key": "k"}
    job = client.post("/v1/jobs", json=body, headers=key).json()
    assert (job["weights"], job["weights_sha256"]) == (weights_id, hashlib.sha256(b"safe").hexdigest())
    assert client.post("/v1/jobs", json=body, headers=key).json()["id"] == job["id"]
    without = {name: value for name, value in body.items() if name != "weights"}
    assert client.post("/v1/jobs", json=without, headers=key).json()["code"] == "IDEMPOTENCY_CONFLICT"
    again = client.post(f"/v1/jobs/{job['id']}/rerun", json={}).json()
    assert again["weights"] == weights_id
    bare = client.post(f"/v1/jobs/{job['id']}/rerun", json={"weights": ""}).json()
    assert bare["weights"] is None
    refused = client.delete(f"/v1/weights/{weights_id}")
    assert refused.json()["code"] == "WEIGHTS_IN_USE" and job["id"] in refused.json()["detail"]
    claim = world.claim()
    assert claim.job.id == job["id"]
    files = DatasetFiles(*[world.settings.data_dir] * 3)
    told = child_config(claim, files, world.settings, device="cpu", resume=None)
    assert BlobStore(world.settings.blobs_dir).path(job["weights_sha256"]).samefile(told["weights"])


def test_a_job_is_refused_weights_it_cannot_start_from(world: World, client: httpx.Client) -> None:
    body = order(world, client)
    bad = [{"name": "model.0.conv.weight", "shape": [16, 3, 6, 6], "dtype": "float32"}]
    ready(world, client, "nan", tensors=bad, not_finite=["model.0.conv.weight"])
    ready(world, client, "other", tensors=[{**bad[0], "shape": [32, 3, 6, 6]}])
    put(client, "importing", FILE + b"i")

    def submit(name: str) -> dict[str, Any]:
        found: dict[str, Any] = client.post("/v1/jobs", json={**body, "weights": name}).json()
        return found

    assert "not finite" in submit("nan")["errors"][0]["message"]
    told = submit("other")
    assert told["code"] == "WEIGHTS_DO_NOT_FIT" and told["errors"][0]["pointer"] == "/weights"
    assert "[32, 3, 6, 6] for [16, 3, 6, 6]" in told["errors"][0]["message"]
    assert submit("importing")["code"] == "WEIGHTS_NOT_READY"
    assert submit("nobody")["code"] == "WEIGHTS_NOT_FOUND"


def test_an_import_the_service_fails_at_is_tried_again_when_sent_again(
    world: World, client: httpx.Client
) -> None:
    made = put(client).json()
    tasks = TaskBook(world.store, world.settings)
    for _ in range(world.settings.task_retries + 1):
        task = None
        while task is None:
            task = tasks.claim("ingest", "test")
        tasks.fail(task.id, task.attempt, Failure(FailureCode.CRASHED, "no"))
    failed = client.get(made["links"]["self"]).json()
    assert (failed["status"], failed["error"]["code"]) == ("failed", "SERVICE_ERROR")
    assert put(client).json()["status"] == "importing"
    read(world)
    assert client.get(made["links"]["self"]).json()["status"] == "ready"


def test_a_job_of_before_has_no_weights(world: World, client: httpx.Client) -> None:
    job = client.post("/v1/jobs", json=order(world, client)).json()
    kept: Job = world.jobs.get(job["id"])
    assert (kept.weights_id, kept.weights_sha256, job["weights"]) == (None, None, None)
