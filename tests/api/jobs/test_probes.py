"""A probe over HTTP: checked as a job, seen and ended by its owner alone; the test plays the worker."""

from __future__ import annotations

import httpx

from api.domain.tasks import TaskBook
from tests.support.service import World, a_dataset, a_job, an_architecture


def test_a_probe_is_measured_by_a_worker_of_its_queue(world: World, client: httpx.Client) -> None:
    job = a_job(world, client)
    body = {"dataset": job["dataset"], "architecture": job["architecture"], "config": {"batch": 4}}
    asked = client.post("/v1/jobs/probe", json=body)
    assert (asked.status_code, asked.json()["status"]) == (202, "queued")
    url = f"/v1/probes/{asked.json()['id']}"
    book = TaskBook(world.store, world.settings)
    task = book.claim("train.cpu", "w1")
    assert task is not None and task.payload["config"]["batch"] == 4
    assert client.get(url).json()["worker"] == "w1"
    book.finish_probe(task.id, task.attempt, {"batch_s": 0.5})
    told = client.get(url).json()
    assert (told["status"], told["result"]) == ("succeeded", {"batch_s": 0.5})
    assert client.delete(url).status_code == 204 and client.get(url).json() == told
    for method in ("GET", "DELETE"):
        stranger = client.request(method, url, headers=world.other_user())
        assert (stranger.status_code, stranger.json()["code"]) == (404, "PROBE_NOT_FOUND")


def test_what_cannot_be_measured_is_refused(world: World, client: httpx.Client) -> None:
    dataset = a_dataset(world, client, ready=False)
    body = {"dataset": dataset, "architecture": an_architecture(client)}
    refused = client.post("/v1/jobs/probe", json=body)
    assert (refused.status_code, refused.json()["code"]) == (409, "DATASET_NOT_READY")
    world.ingest(dataset)
    assert client.post("/v1/jobs/probe", json=body | {"config": {"epochs": 0}}).status_code == 422
