"""A job over HTTP, from its submission to what it leaves behind; the test plays the worker."""

from __future__ import annotations

import threading
import time
from typing import Any

import httpx
import pytest

from api.domain.blobs import BlobStore
from api.domain.failures import Failure, FailureCode
from api.domain.records import Artifact, EpochRow
from tests.support.service import World, a_dataset, a_job, an_architecture, model_text

EPOCH = {
    "train": {"box": 0.1, "obj": 0.2, "cls": 0.3},
    "val": {"box": 0.4, "obj": 0.5, "cls": 0.6},
    "precision": 0.5,
    "recall": 0.25,
    "map50": 0.75,
    "map50_95": 0.5,
    "fitness": 0.525,
    "best": True,
    "lr": [0.1, 0.01, 0.01],
    "seconds": 1.5,
}


def test_a_submission_is_checked_filled_in_and_queued(world: World, client: httpx.Client) -> None:
    job = a_job(world, client, config={"epochs": 3, "hyp": {"lr0": 0.02}}, name="first", tags=["x"])
    assert (job["status"], job["name"], job["tags"]) == ("queued", "first", ["x"])
    assert job["config"]["hyp"]["lr0"] == 0.02
    assert job["config"]["imgsz"] == 640
    assert job["waiting_reason"] == "no_worker"
    shown = client.get(job["links"]["self"])
    assert shown.json() == job
    listed = client.get("/v1/jobs", params={"status": "queued"}).json()
    assert [item["id"] for item in listed["items"]] == [job["id"]]
    assert client.get("/v1/jobs", params={"status": ["failed", "running"]}).json()["items"] == []
    trail = client.get(f"{job['links']['self']}/transitions").json()["items"]
    assert [(item["from"], item["to"]) for item in trail] == [(None, "queued")]


def test_the_same_key_gives_the_same_job(world: World, client: httpx.Client) -> None:
    body = {"dataset": a_dataset(world, client), "architecture": an_architecture(client)}
    key = {"Idempotency-Key": "build-17"}
    first = client.post("/v1/jobs", json=body, headers=key)
    again = client.post("/v1/jobs", json=body, headers=key)
    assert first.headers["location"] == again.headers["location"]
    assert again.headers["idempotent-replayed"] == "true"
    other = client.post("/v1/jobs", json={**body, "config": {"epochs": 7}}, headers=key)
    assert (other.status_code, other.json()["code"]) == (409, "IDEMPOTENCY_CONFLICT")
    assert len(client.get("/v1/jobs").json()["items"]) == 1


def test_a_key_is_answered_although_the_dataset_is_gone(world: World, client: httpx.Client) -> None:
    """The first answer may have been lost, and the job may have ended since."""
    body = {"dataset": a_dataset(world, client), "architecture": an_architecture(client)}
    key = {"Idempotency-Key": "build-18"}
    first = client.post("/v1/jobs", json=body, headers=key)
    client.post(first.json()["links"]["cancel"])
    assert client.delete(f"/v1/datasets/{body['dataset']}").status_code == 204
    again = client.post("/v1/jobs", json=body, headers=key)
    assert (again.status_code, again.json()["id"]) == (201, first.json()["id"])
    assert again.headers["idempotent-replayed"] == "true"
    other = client.post("/v1/jobs", json={**body, "name": "x"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (409, "IDEMPOTENCY_CONFLICT")
    stranger = client.post("/v1/jobs", json=body, headers={**key, **world.other_user()})
    assert stranger.status_code == 422


def test_a_job_waits_for_a_dataset_that_is_still_ingested(world: World, client: httpx.Client) -> None:
    dataset = a_dataset(world, client, ready=False)
    body = {"dataset": dataset, "architecture": an_architecture(client)}
    job = client.post("/v1/jobs", json=body).json()
    assert job["waiting_reason"] == "waiting_for_dataset"
    world.condemn(dataset, BlobStore(world.settings.blobs_dir).put_bytes(b'{"problems":[]}').sha256)
    failed = client.get(job["links"]["self"]).json()
    assert (failed["status"], failed["error"]["code"]) == ("failed", "DATASET_INVALID")
    assert failed["error"]["hint"]


def test_the_classes_of_the_dataset_replace_those_of_the_yaml(world: World, client: httpx.Client) -> None:
    job = a_job(world, client)
    plan = client.get(f"/v1/architectures/{job['architecture']}/plan", params={"num_classes": 2}).json()
    assert plan["num_classes"] == 2


def test_an_unchanged_job_is_not_sent_again(world: World, client: httpx.Client) -> None:
    job = a_job(world, client)
    shown = client.get(job["links"]["self"])
    headers = {"If-None-Match": shown.headers["etag"]}
    assert client.get(job["links"]["self"], headers=headers).status_code == 304
    claim = world.claim()
    world.jobs.record_progress(job["id"], claim.attempt, {"epoch": 1})
    changed = client.get(job["links"]["self"], headers=headers)
    assert changed.status_code == 200
    assert changed.json()["progress"] == {"epoch": 1}


def test_waiting_for_news_ends_with_the_news(world: World, client: httpx.Client) -> None:
    job = a_job(world, client)
    etag = client.get(job["links"]["self"]).headers["etag"]
    timer = threading.Timer(0.3, world.claim)
    timer.start()
    began = time.monotonic()
    answer = client.get(job["links"]["self"], headers={"If-None-Match": etag, "Prefer": "wait=20"})
    timer.join()
    assert answer.json()["status"] == "running"
    assert answer.headers["preference-applied"] == "wait=20"
    assert time.monotonic() - began < 15
    still = client.get(
        job["links"]["self"], headers={"If-None-Match": answer.headers["etag"], "Prefer": "wait=0"}
    )
    assert still.status_code == 304


def test_waiting_without_an_etag_ends_with_the_job(world: World, client: httpx.Client) -> None:
    job = a_job(world, client)
    timer = threading.Timer(0.2, lambda: world.jobs.cancel(job["id"]))
    timer.start()
    answer = client.get(job["links"]["self"], headers={"Prefer": "wait=20"})
    timer.join()
    assert answer.json()["status"] == "cancelled"


def test_cancelling(world: World, client: httpx.Client) -> None:
    queued = a_job(world, client)
    cancelled = client.post(queued["links"]["cancel"])
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    assert client.post(queued["links"]["cancel"]).status_code == 200
    body = {"dataset": queued["dataset"], "architecture": queued["architecture"]}
    running = client.post("/v1/jobs", json=body).json()
    claim = world.claim()
    told = client.post(running["links"]["cancel"])
    assert (told.status_code, told.json()["wish"]) == (202, "cancel")
    failure = Failure(FailureCode.CONFIG_INVALID, "no")
    world.jobs.fail(running["id"], claim.attempt, failure)
    late = client.post(running["links"]["cancel"])
    assert (late.status_code, late.json()["code"]) == (409, "JOB_FINAL")


def run_to_its_end(world: World, job: dict[str, Any], content: bytes) -> None:
    claim = world.claim()
    blob = BlobStore(world.settings.blobs_dir).put_bytes(content)
    rows = [EpochRow(epoch, {**EPOCH, "epoch": epoch}, event_id=f"1-{epoch + 2}") for epoch in range(3)]
    world.jobs.record_epochs(job["id"], claim.attempt, rows)
    artifact = Artifact("best.pt", "weights", blob.sha256, blob.size_bytes, "application/octet-stream")
    world.jobs.finish(job["id"], claim.attempt, artifacts=[artifact])


def test_what_a_finished_job_leaves_behind(world: World, client: httpx.Client) -> None:
    job = a_job(world, client)
    content = bytes(range(256)) * 40
    run_to_its_end(world, job, content)
    base = job["links"]["self"]
    assert client.get(base).json()["status"] == "succeeded"
    epochs = client.get(f"{base}/metrics").json()["items"]
    assert [item["epoch"] for item in epochs] == [0, 1, 2]
    assert epochs[0]["map50"] == 0.75
    assert len(client.get(f"{base}/metrics", params={"max_points": 2}).json()["items"]) == 2
    table = client.get(f"{base}/metrics.csv")
    assert table.headers["content-type"].startswith("text/csv")
    assert len(table.text.splitlines()) == 4
    attempts = client.get(f"{base}/attempts").json()["items"]
    assert [(item["attempt"], item["worker"]) for item in attempts] == [(1, "worker-1")]
    (artifact,) = client.get(f"{base}/artifacts").json()["items"]
    assert (artifact["name"], artifact["size_bytes"]) == ("best.pt", len(content))

    url = f"{base}/artifacts/best.pt"
    whole = client.get(url)
    assert whole.content == content
    assert whole.headers["content-disposition"] == 'attachment; filename="best.pt"'
    part = client.get(url, headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, content[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(content)}"
    stale = client.get(url, headers={"Range": "bytes=100-199", "If-Range": '"other"'})
    assert stale.content == content
    assert client.get(url, headers={"If-None-Match": whole.headers["etag"]}).status_code == 304
    behind = client.get(url, headers={"Range": "bytes=99999-"})
    assert (behind.status_code, behind.json()["code"]) == (416, "RANGE_UNSATISFIABLE")
    assert behind.headers["content-range"] == f"bytes */{len(content)}"
    assert client.get(f"{base}/artifacts/worst.pt").status_code == 404


def test_a_log_is_read_while_it_grows(world: World, client: httpx.Client) -> None:
    job = a_job(world, client)
    url = job["links"]["log"]
    assert client.get(url).text == ""
    assert client.get(url, headers={"Range": "bytes=0-"}).status_code == 416
    world.claim()
    folder = world.settings.attempt_dir(job["id"], 1)
    folder.mkdir(parents=True)
    (folder / "train.log").write_text("hello\n")
    answer = client.get(url)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text == "hello\n"
    with (folder / "train.log").open("a") as log:
        log.write("again\n")
    assert client.get(url, headers={"Range": "bytes=6-"}).text == "again\n"
    assert client.get(url, headers={"Range": "bytes=-3"}).text == "in\n"
    assert client.get(url, params={"attempt": 2}).text == ""


def test_lists_go_on_by_cursor(world: World, client: httpx.Client) -> None:
    body = {"dataset": a_dataset(world, client), "architecture": an_architecture(client)}
    made = [client.post("/v1/jobs", json=body).json()["id"] for _ in range(5)]
    seen: list[str] = []
    url: str | None = "/v1/jobs?limit=2"
    while url is not None:
        page = client.get(url)
        seen += [item["id"] for item in page.json()["items"]]
        link = page.links.get("next")
        assert (link is None) == (page.json()["next"] is None)
        url = None if link is None else link["url"]
    assert seen == made[::-1]


def test_what_a_configuration_may_hold_is_published(client: httpx.Client) -> None:
    schema = client.get("/v1/config/schema").json()
    assert schema["properties"]["epochs"]["minimum"] == 1
    assert schema["properties"]["epochs"]["title"]
    assert "scratch-low" in client.get("/v1/presets").json()


def test_an_architecture_is_kept_shown_and_planned(client: httpx.Client) -> None:
    kept = client.post("/v1/architectures", params={"name": "n"}, content=model_text())
    body = kept.json()
    assert kept.headers["location"] == f"/v1/architectures/{body['id']}"
    assert body["num_parameters"] == 1_872_157
    assert body["strides"] == [8, 16, 32]
    assert client.get(kept.headers["location"]).json() == body
    again = client.post("/v1/architectures", params={"name": "n"}, content=model_text())
    assert (again.status_code, again.json()["id"]) == (200, body["id"])
    other = client.post("/v1/architectures", params={"name": "n"}, content=model_text(3))
    assert (other.status_code, other.json()["code"]) == (409, "NAME_TAKEN")
    checked = client.post("/v1/architectures/check", params={"num_classes": 3}, content=model_text())
    assert checked.json()["num_classes"] == 3
    assert len(client.get("/v1/architectures").json()["items"]) == 1


def test_a_dataset_is_explained_and_deleted(world: World, client: httpx.Client) -> None:
    dataset = a_dataset(world, client, ready=False)
    url = f"/v1/datasets/{dataset}"
    assert client.get(f"{url}/problems").json()["items"] == []
    assert client.get(f"{url}/statistics").json()["code"] == "DATASET_NOT_READY"
    report = b'{"problems":[{"code":"A"},{"code":"B"}],"truncated":false,"summary":{"images":0}}'
    world.condemn(dataset, BlobStore(world.settings.blobs_dir).put_bytes(report).sha256)
    problems = client.get(f"{url}/problems", params={"limit": 1}).json()
    assert problems == {
        "status": "invalid",
        "items": [{"code": "A"}],
        "truncated": True,
        "summary": {"images": 0},
    }
    assert client.delete(url).status_code == 204
    assert client.get(url).status_code == 404

    job = a_job(world, client)
    used = client.delete(f"/v1/datasets/{job['dataset']}")
    assert (used.status_code, used.json()["code"]) == (409, "DATASET_IN_USE")
    shown = client.get(f"/v1/datasets/{job['dataset']}").json()
    assert (shown["num_classes"], shown["splits"], shown["num_boxes"]) == (2, {"train": 2, "val": 1}, 5)
    assert client.get(f"/v1/datasets/{job['dataset']}/statistics").json() == {"images": 3}


@pytest.mark.parametrize("name", ["best.pt", "plots/PR curve.png"])
def test_artifacts_may_have_folders_and_spaces(world: World, client: httpx.Client, name: str) -> None:
    job = a_job(world, client)
    claim = world.claim()
    blob = BlobStore(world.settings.blobs_dir).put_bytes(b"data")
    world.jobs.add_artifacts(
        job["id"], claim.attempt, [Artifact(name, "plot", blob.sha256, blob.size_bytes, "image/png")]
    )
    answer = client.get(f"{job['links']['artifacts']}/{name}")
    assert answer.content == b"data"
    assert answer.headers["content-disposition"].startswith("inline")
