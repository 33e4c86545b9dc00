"""Jobs are edited, deleted and run again over HTTP, in every state where that has a meaning."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.support.job_states import FINAL, STATES, Jobs
from tests.support.service import World, a_job, submitted


@pytest.mark.parametrize("state", STATES)
def test_only_what_has_ended_is_deleted(jobs: Jobs, state: str) -> None:
    job_id = STATES[state](jobs)
    status = jobs.book.get(job_id).status.value
    answer = jobs.client.delete(f"/v1/jobs/{job_id}")
    if state in FINAL:
        assert (answer.status_code, answer.content) == (204, b"")
        for path in ("", "/metrics", "/transitions", "/artifacts"):
            assert jobs.client.get(f"/v1/jobs/{job_id}{path}").json()["code"] == "JOB_NOT_FOUND"
        assert jobs.client.delete(f"/v1/jobs/{job_id}").status_code == 404
    else:
        assert (answer.status_code, answer.json()["code"]) == (409, "JOB_NOT_FINAL")
        assert status in answer.json()["detail"]
        assert jobs.book.get(job_id).status.value == status


@pytest.mark.parametrize("state", STATES)
def test_whatever_has_not_ended_is_edited(jobs: Jobs, state: str) -> None:
    job_id = STATES[state](jobs)
    before = jobs.book.get(job_id)
    edits = {"priority": 7, "name": "other", "tags": ["a", "b"]}
    answer = jobs.client.patch(f"/v1/jobs/{job_id}", json=edits, headers={"If-Match": "*"})
    if state in FINAL:
        assert (answer.status_code, answer.json()["code"]) == (409, "JOB_FINAL")
        assert before.status.value in answer.json()["detail"] and jobs.book.get(job_id) == before
        return
    assert answer.status_code == 200
    assert edits.items() <= answer.json().items() and answer.json()["wish"] == before.wish


def test_an_edit_is_bound_to_the_state_that_was_read(jobs: Jobs) -> None:
    job_id = jobs.queued(priority=3)
    url = f"/v1/jobs/{job_id}"
    shown = jobs.client.get(url)
    assert shown.json()["priority"] == 3
    blind = jobs.client.patch(url, json={"priority": 5})
    assert (blind.status_code, blind.json()["code"]) == (428, "IF_MATCH_MISSING")
    assert blind.json()["errors"][0]["pointer"] == "If-Match"
    tag = shown.headers["etag"]
    edited = jobs.client.patch(url, json={"priority": 5}, headers={"If-Match": tag})
    assert (edited.status_code, edited.json()["priority"]) == (200, 5)
    late = jobs.client.patch(url, json={"priority": 6}, headers={"If-Match": tag})
    assert (late.status_code, late.json()["code"]) == (412, "REVISION_MISMATCH")
    revision = edited.json()["revision"]
    assert f"revision {revision}" in late.json()["detail"]
    for good in (f'"{revision}"', f'"77", W/"{revision}-x"', edited.headers["etag"], f'"{revision}"'):
        same = jobs.client.patch(url, json={"priority": 5}, headers={"If-Match": good})
        assert (same.status_code, same.json()["revision"]) == (200, revision), "nothing changed"
    for bad in ("banana", "", f"{revision}", f'"{revision + 1}"', f'"{10**20}"'):
        assert jobs.client.patch(url, json={"priority": 9}, headers={"If-Match": bad}).status_code == 412
    empty = jobs.client.patch(url, headers={"If-Match": "*"})
    assert (empty.status_code, empty.json()["priority"]) == (200, 5)


def test_a_higher_priority_goes_first(world: World, client: httpx.Client) -> None:
    first = a_job(world, client)
    body = {"dataset": first["dataset"], "architecture": first["architecture"]}
    second, third = submitted(client, body), submitted(client, body)
    positions = [client.get(job["links"]["self"]).json()["queue_position"] for job in (first, second, third)]
    assert positions == [1, 2, 3]
    tag = client.get(third["links"]["self"]).headers["etag"]
    client.patch(third["links"]["self"], json={"priority": 1}, headers={"If-Match": "*"})
    assert client.get(third["links"]["self"]).json()["queue_position"] == 1
    assert client.get(third["links"]["self"], headers={"If-None-Match": tag}).status_code == 200
    listed = client.get("/v1/jobs").json()["items"]
    assert [(job["id"], job["queue_position"]) for job in listed] == [
        (third["id"], 1),
        (second["id"], 3),
        (first["id"], 2),
    ]
    assert world.claim().job.id == third["id"]
    assert client.get(first["links"]["self"]).json()["queue_position"] == 1


def test_a_rerun_is_the_same_job_but_for_its_edits(jobs: Jobs) -> None:
    config = {"epochs": 5, "preset": "scratch-high", "hyp": {"lr0": 0.02}}
    job_id = jobs.queued(config=config, name="first", tags=["x"], priority=2, max_runtime_s=600)
    old = jobs.client.get(f"/v1/jobs/{job_id}").json()
    assert (old["parent"], old["max_runtime_s"], old["simulated"]) == (None, 600, False)

    answer = jobs.client.post(f"/v1/jobs/{job_id}/rerun")
    again = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (201, again["links"]["self"])
    assert again["id"] != job_id and again["parent"] == job_id
    for same in (
        *("config", "config_hash", "name", "tags", "queue"),
        *("priority", "max_runtime_s", "dataset", "architecture"),
    ):
        assert again[same] == old[same], same

    edits = {"config": {"epochs": 9, "hyp": {"momentum": 0.9}}, "name": "second", "tags": [], "priority": 0}
    edited = jobs.client.post(f"/v1/jobs/{job_id}/rerun", json=edits).json()
    assert (edited["name"], edited["tags"], edited["priority"]) == ("second", [], 0)
    assert edited["config"]["epochs"] == 9
    expected = old["config"]["hyp"] | {"momentum": 0.9}
    assert edited["config"]["hyp"] == expected and expected["lr0"] == 0.02
    assert edited["config_hash"] != old["config_hash"]

    other = jobs.client.post(f"/v1/jobs/{job_id}/rerun", json={"config": {"preset": "scratch-low"}}).json()
    low = jobs.client.get("/v1/presets").json()["scratch-low"]
    assert low.items() <= other["config"]["hyp"].items(), "another preset replaces all of the old one"


@pytest.mark.parametrize("state", STATES)
def test_a_job_in_any_state_is_run_again(jobs: Jobs, state: str) -> None:
    job_id = STATES[state](jobs)
    answer = jobs.client.post(f"/v1/jobs/{job_id}/rerun")
    body = answer.json()
    assert (answer.status_code, body["status"], body["attempt"], body["parent"]) == (201, "queued", 0, job_id)


def test_a_rerun_with_a_key_is_made_once(jobs: Jobs) -> None:
    job_id, key = jobs.succeeded(), {"Idempotency-Key": "again-1"}
    url = f"/v1/jobs/{job_id}/rerun"
    first, again = (jobs.client.post(url, json={"name": "n"}, headers=key) for _ in range(2))
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["idempotent-replayed"] == "true" and "idempotent-replayed" not in first.headers
    other = jobs.client.post(url, json={"name": "m"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (409, "IDEMPOTENCY_CONFLICT")
    # A rerun outlives what it came from, and says so still.
    assert jobs.client.delete(f"/v1/jobs/{job_id}").status_code == 204
    assert jobs.client.get(first.json()["links"]["self"]).json()["parent"] == job_id
    assert jobs.client.post(url, headers=key).status_code == 404


BAD_RERUNS: list[tuple[dict[str, Any], str, str]] = [
    ({"config": {"epochs": 0}}, "CONFIG_INVALID", "/config/epochs"),
    ({"config": {"hyp": {"mosaik": 1}}}, "CONFIG_INVALID", "/config/hyp/mosaik"),
    ({"config": {"hyp": 3}}, "CONFIG_INVALID", "/config/hyp"),
    ({"config": {"quad": True, "batch": 6}}, "CONFIG_INVALID", "/config/quad"),
    ({"dataset": "ds_0"}, "DATASET_NOT_FOUND", "/dataset"),
    ({"architecture": "arch_0"}, "ARCHITECTURE_NOT_FOUND", "/architecture"),
    ({"epochs": 3}, "REQUEST_INVALID", "/epochs"),
    ({"max_runtime_s": 0}, "REQUEST_INVALID", "/max_runtime_s"),
    ({"priority": 1001}, "REQUEST_INVALID", "/priority"),
    ({"queue": "ingest"}, "REQUEST_INVALID", "/queue"),
]


def test_edits_that_do_not_fit_are_refused_with_their_place(jobs: Jobs) -> None:
    job_id = jobs.failed()
    count = len(jobs.book.list(limit=500).items)
    for edits, code, pointer in BAD_RERUNS:
        answer = jobs.client.post(f"/v1/jobs/{job_id}/rerun", json=edits)
        assert (answer.status_code, answer.json()["code"]) == (422, code), edits
        assert answer.json()["errors"][0]["pointer"] == pointer
    assert len(jobs.book.list(limit=500).items) == count


def test_a_rerun_needs_its_dataset(world: World, client: httpx.Client) -> None:
    job = a_job(world, client)
    client.post(job["links"]["cancel"])
    assert client.delete(f"/v1/datasets/{job['dataset']}").status_code == 204
    gone = client.post(job["links"]["rerun"])
    assert (gone.status_code, gone.json()["code"]) == (422, "DATASET_NOT_FOUND")


def test_an_administrator_reruns_for_the_owner(world: World, client: httpx.Client) -> None:
    owner = world.other_user()
    with httpx.Client(base_url=client.base_url, headers=owner) as theirs:
        job = a_job(world, theirs)
        again = client.post(job["links"]["rerun"])
        assert (again.status_code, again.json()["parent"]) == (201, job["id"])
        assert theirs.get(again.json()["links"]["self"]).status_code == 200
