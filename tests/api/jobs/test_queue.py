"""What is shown of jobs that wait, at what cost, and what an owner's limits do to them."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from api.domain.records import WaitingReason
from tests.support.service import World, a_job, client_of, new_world, submitted


@pytest.mark.usefixtures("books_in")
def test_too_many_queued_jobs_are_refused_for_now(tmp_path: Path) -> None:
    with new_world(tmp_path, max_queued_per_owner=2) as world, client_of(world) as client:
        job = a_job(world, client)
        body = {"dataset": job["dataset"], "architecture": job["architecture"]}
        key = {"Idempotency-Key": "k"}
        client.post("/v1/jobs", json=body, headers=key)
        for answer in (client.post("/v1/jobs", json=body), client.post(job["links"]["rerun"])):
            assert (answer.status_code, answer.json()["code"]) == (429, "TOO_MANY_QUEUED")
            assert int(answer.headers["retry-after"]) > 0
        assert client.post("/v1/jobs", json=body, headers=key).status_code == 201, "it is in the book"
        world.claim()
        assert client.post("/v1/jobs", json=body).status_code == 201


def test_a_list_asks_the_book_as_often_for_one_as_for_many(world: World, client: httpx.Client) -> None:
    job = a_job(world, client)
    body = {"dataset": job["dataset"], "architecture": job["architecture"]}
    ids = [job["id"], *(submitted(client, body)["id"] for _ in range(9))]
    service = world.job_service()
    rows = [world.jobs.get(job_id) for job_id in ids]
    few = world.num_queries(lambda: service.views(rows[:1]))
    assert world.num_queries(lambda: service.views(rows)) == few
    service.current_snapshots(ids)
    assert world.num_queries(lambda: service.current_snapshots(ids)) == few + 1, "and their revisions"


def test_snapshots_for_the_hub_follow_the_job_and_its_queue(world: World, client: httpx.Client) -> None:
    job = a_job(world, client)
    body = {"dataset": job["dataset"], "architecture": job["architecture"]}
    second = submitted(client, body)["id"]
    service = world.job_service()
    shown = service.current_snapshots([job["id"], second, "job_0"])
    assert {key: item["queue_position"] for key, item in shown.items()} == {job["id"]: 1, second: 2}
    world.claim()
    shown = service.current_snapshots([job["id"], second])
    assert {key: item["queue_position"] for key, item in shown.items()} == {job["id"]: None, second: 1}
    assert shown == {key: client.get(f"/v1/jobs/{key}").json() for key in shown}
    assert service.current_snapshots([job["id"]])[job["id"]] is shown[job["id"]], "made once a revision"
    client.post(f"/v1/jobs/{second}/cancel")
    client.delete(f"/v1/jobs/{second}")
    assert list(service.current_snapshots([job["id"], second])) == [job["id"]]


@pytest.mark.usefixtures("books_in")
def test_an_owner_s_limit_is_what_a_job_waits_for(tmp_path: Path) -> None:
    with new_world(tmp_path, max_running_per_owner=1) as world, client_of(world) as client:
        job = a_job(world, client)
        body = {"dataset": job["dataset"], "architecture": job["architecture"]}
        waiting = submitted(client, body)
        world.claim()
        shown = client.get(waiting["links"]["self"]).json()
        assert shown["waiting_reason"] == WaitingReason.OWNER_LIMIT and shown["queue_position"] is None
