"""What belongs to one caller does not exist for another, on every route that names a thing."""

from __future__ import annotations

import re
from collections.abc import Mapping

import httpx
import pytest

from api.domain.blobs import BlobStore
from api.domain.records import Artifact
from tests.support.service import World, a_job

# Queries that lead a route down another path.
MORE_QUERIES: Mapping[str, tuple[str, ...]] = {
    "/v1/jobs/{job_id}/log": ("attempt=1", "attempt=2"),
    "/v1/jobs/{job_id}/events": ("last_event_id=1-1",),
}

# What these tests' dataset has none of: nobody read its archive.
OF_A_READ_DATASET = ("/images", "/thumbnails/{n}", "/report.html", "/diff", "/export")


@pytest.fixture
def things(world: World, client: httpx.Client) -> dict[str, str]:
    """Make one of everything that has an owner; return what stands for it in a path."""
    job = a_job(world, client)
    attempt = world.claim().attempt
    folder = world.settings.attempt_dir(job["id"], attempt)
    folder.mkdir(parents=True)
    (folder / "train.log").write_text("a secret\n")
    blob = BlobStore(world.settings.blobs_dir).put_bytes(b"weights")
    best = Artifact("best.pt", "weights", blob.sha256, blob.size_bytes, "application/octet-stream")
    world.jobs.add_artifacts(job["id"], attempt, [best])
    return {
        "job_id": job["id"],
        "dataset_id": job["dataset"],
        "architecture_id": job["architecture"],
        "name": "best.pt",
        "n": "0",
    }


def operations(client: httpx.Client) -> list[tuple[str, str]]:
    """Return method and path of every operation on one job, dataset or architecture."""
    paths = client.get("/openapi.json").json()["paths"]
    nouns = re.compile(r"/v1/(jobs|datasets|architectures)/\{")
    return [(method, path) for path, item in paths.items() if nouns.match(path) for method in item]


def test_nothing_of_another_s_is_shown_or_changed(
    world: World, client: httpx.Client, things: dict[str, str]
) -> None:
    stranger, asked = world.other_user(), 0
    for method, path in operations(client):
        for query in ("", *MORE_QUERIES.get(path, ())):
            url = f"{path.format(**things)}?{query}"
            answer = client.request(method, url, headers=stranger)
            assert answer.status_code == 404, (method, url, answer.text[:200])
            assert answer.json()["code"].endswith("_NOT_FOUND"), (method, url)
            asked += 1
    assert asked > 14
    assert client.get(f"/v1/events?job={things['job_id']}", headers=stranger).status_code == 404
    for noun in ("jobs", "datasets", "architectures"):
        assert client.get(f"/v1/{noun}", headers=stranger).json()["items"] == []


def test_another_s_things_cannot_be_used(world: World, client: httpx.Client, things: dict[str, str]) -> None:
    body = {"dataset": things["dataset_id"], "architecture": things["architecture_id"]}
    answer = client.post("/v1/jobs", json=body, headers=world.other_user())
    assert (answer.status_code, answer.json()["code"]) == (422, "DATASET_NOT_FOUND")


def test_the_owner_sees_all_of_it(client: httpx.Client, things: dict[str, str]) -> None:
    """So that the refusals above are the owner's doing, and not a route's that finds nothing at all."""
    own = [
        path
        for method, path in operations(client)
        if method == "get" and not path.endswith(("/events", "/problems", *OF_A_READ_DATASET))
    ]
    for path in own:
        answer = client.get(path.format(**things))
        assert answer.status_code == 200, (path, answer.text[:200])
    assert client.get(f"/v1/jobs/{things['job_id']}/log?attempt=1").text == "a secret\n"
