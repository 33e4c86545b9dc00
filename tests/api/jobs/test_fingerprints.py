"""The same run over HTTP: told with the job, asked for, taken or refused."""

from __future__ import annotations

import httpx

from tests.support.service import World, a_job, submitted


def test_an_identical_run_is_new_taken_or_refused(world: World, client: httpx.Client) -> None:
    job = a_job(world, client, config={"epochs": 3})
    body = {"dataset": job["dataset"], "architecture": job["architecture"], "config": {"epochs": 3}}
    taken = client.post("/v1/jobs", json={**body, "name": "x", "on_duplicate": "reuse"})
    assert (taken.status_code, taken.json()["id"], taken.headers["run-reused"]) == (200, job["id"], "true")
    assert taken.headers["location"] == job["links"]["self"]
    refused = client.post("/v1/jobs", json={**body, "on_duplicate": "refuse"})
    assert (refused.status_code, refused.json()["code"]) == (409, "RUN_EXISTS")
    assert refused.json()["errors"][0]["value"] == job["id"]
    other = submitted(client, body | {"config": {"epochs": 4}, "on_duplicate": "reuse"})
    again = submitted(client, {**body, "config": {"epochs": 3, "runtime": {"workers": 1}}})
    assert again["fingerprint"] == job["fingerprint"] != other["fingerprint"] and not again["stopped"]
    found = client.get("/v1/jobs", params={"fingerprint": job["fingerprint"]}).json()["items"]
    assert [item["id"] for item in found] == [again["id"], job["id"]]
    assert client.get("/v1/jobs", params={"fingerprint": "x"}).status_code == 422


def test_how_to_submit_is_no_part_of_what_a_key_stands_for(world: World, client: httpx.Client) -> None:
    job = a_job(world, client)
    body = {"dataset": job["dataset"], "architecture": job["architecture"]}
    key = {"Idempotency-Key": "k"}
    first = client.post("/v1/jobs", json=body, headers=key).json()
    again = client.post("/v1/jobs", json={**body, "on_duplicate": "refuse"}, headers=key)
    assert (again.status_code, again.json()["id"]) == (201, first["id"])
    assert again.headers["idempotent-replayed"] == "true"
