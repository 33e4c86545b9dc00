"""What people may do with a job over HTTP: every wish in every state, edits, reruns, deletion."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.domain.failures import Failure, FailureCode
from api.domain.records import Artifact, Claim, JobStatus, Pointer, WaitingReason
from tests.support.service import World, a_dataset, a_job, an_architecture, client_of, new_world, submitted

BEST = {"epoch": 1, "map50": 0.5}
CRASH = Failure(FailureCode.CRASHED, "exit 1")
WRONG = Failure(FailureCode.CONFIG_INVALID, "no")
VERBS = ("cancel", "stop", "pause", "activate")


class Jobs:
    """Makes jobs in any state, each in a queue of its own, on one dataset."""

    def __init__(self, world: World, client: httpx.Client) -> None:
        self.world, self.client = world, client
        self.book = world.jobs
        self.dataset = a_dataset(world, client)
        self.unready = a_dataset(world, client, "unready", ready=False)
        self.architecture = an_architecture(client)
        self._numbers = itertools.cycle(range(1, 100))

    def queued(self, dataset: str | None = None, **more: Any) -> str:
        """Submit one."""
        queue = f"train.g{next(self._numbers)}"
        body = {"dataset": dataset or self.dataset, "architecture": self.architecture, "queue": queue}
        return str(submitted(self.client, {**body, **more})["id"])

    def _claim(self, job_id: str) -> Claim:
        queue = self.book.get(job_id).queue
        # There are fewer queues than tests.
        for other in self.book.list(status=[JobStatus.QUEUED], limit=500).items:
            if other.queue == queue and other.id != job_id:
                self.book.cancel(other.id)
        claim = self.book.claim(queue, "w1")
        assert claim is not None and claim.job.id == job_id
        return claim

    def running(self, *, best: bool = False, wish: str | None = None) -> str:
        """Submit one and claim it; with `best` it has a checkpoint that knows its best epoch."""
        job_id = self.queued()
        attempt = self._claim(job_id).attempt
        if best:
            self.book.move_pointer(job_id, attempt, Pointer(attempt, 2, 0, "c.pt", "e" * 64, best=BEST))
        if wish is not None:
            self.client.post(f"/v1/jobs/{job_id}/{wish}")
        return job_id

    def after_failure(self) -> str:
        """Return one that waits for its next attempt."""
        job_id = self.running()
        self.book.fail(job_id, 1, CRASH)
        return job_id

    def paused(self, *, best: bool = False) -> str:
        """Return one that ran and is held."""
        job_id = self.running(best=best, wish="pause")
        self.book.release(job_id, 1)
        return job_id

    def queued_again(self, *, best: bool = False, wish: str | None = None) -> str:
        """Return one that ran and waits for a worker, or that a worker gave back with a wish upon it."""
        job_id = self.running(best=best, wish=wish)
        self.book.release(job_id, 1, drained=True)
        return job_id

    def store_weights(self, job_id: str) -> None:
        """Store what a trainer delivers."""
        attempt = self.book.get(job_id).attempt
        self.book.add_artifacts(job_id, attempt, [Artifact("best.pt", "weights", "f" * 64, 5, "text/plain")])

    def succeeded(self, *, best: bool = False) -> str:
        """Return one that finished."""
        job_id = self.running(best=best)
        self.book.finish(job_id, 1)
        return job_id

    def failed(self) -> str:
        """Return one that failed for good."""
        job_id = self.running()
        self.book.fail(job_id, 1, WRONG)
        return job_id

    def cancelled(self) -> str:
        """Return one that was dropped before it ran."""
        job_id = self.queued()
        self.book.cancel(job_id)
        return job_id


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory, books_in: str) -> Iterator[Jobs]:
    folder = tmp_path_factory.mktemp("world")
    with new_world(folder, retry_backoff_s=600.0) as world, client_of(world) as client:
        yield Jobs(world, client)


Make = Callable[[Jobs], str]
STATES: dict[str, Make] = {
    "queued": lambda jobs: jobs.queued(),
    "waiting for its dataset": lambda jobs: jobs.queued(jobs.unready),
    "waiting to retry": lambda jobs: jobs.after_failure(),
    "queued with a best": lambda jobs: jobs.queued_again(best=True),
    "queued, to be stopped": lambda jobs: jobs.queued_again(best=True, wish="stop"),
    "running": lambda jobs: jobs.running(),
    "running, to be paused": lambda jobs: jobs.running(wish="pause"),
    "running, to be stopped": lambda jobs: jobs.running(wish="stop"),
    "running, to be cancelled": lambda jobs: jobs.running(wish="cancel"),
    "paused": lambda jobs: jobs.paused(),
    "paused with a best": lambda jobs: jobs.paused(best=True),
    "succeeded": lambda jobs: jobs.succeeded(),
    "succeeded with a best": lambda jobs: jobs.succeeded(best=True),
    "failed": lambda jobs: jobs.failed(),
    "cancelled": lambda jobs: jobs.cancelled(),
}
# What each of VERBS leads to: state, or state and wish; None where it is refused.
WAITS = ("cancelled", "cancelled", "paused", "queued")
TABLE: dict[str, tuple[str | None, ...]] = {
    "queued": WAITS,
    "waiting for its dataset": WAITS,
    "waiting to retry": WAITS,
    "queued with a best": ("cancelled", "queued stop", "paused", "queued"),
    "queued, to be stopped": ("cancelled", "queued stop", "queued stop", "queued"),
    "running": ("running cancel", "running stop", "running pause", "running"),
    "running, to be paused": ("running cancel", "running stop", "running pause", "running"),
    "running, to be stopped": ("running cancel", "running stop", "running stop", "running stop"),
    "running, to be cancelled": ("running cancel",) * 4,
    "paused": WAITS,
    "paused with a best": ("cancelled", "queued stop", "paused", "queued"),
    "succeeded": (None,) * 4,
    "succeeded with a best": (None, "succeeded", None, None),
    "failed": (None,) * 4,
    "cancelled": ("cancelled", "cancelled", None, None),
}
CASES = [(state, verb, after) for state, row in TABLE.items() for verb, after in zip(VERBS, row, strict=True)]


@pytest.mark.parametrize(("state", "verb", "after"), CASES, ids=lambda value: str(value).replace(" ", "_"))
def test_every_wish_in_every_state(jobs: Jobs, state: str, verb: str, after: str | None) -> None:
    job_id = STATES[state](jobs)
    before = jobs.book.get(job_id)
    answer = jobs.client.post(f"/v1/jobs/{job_id}/{verb}")
    body, now = answer.json(), jobs.book.get(job_id)
    if after is None:
        assert (answer.status_code, body["code"]) == (409, "JOB_FINAL")
        assert before.status.value in body["detail"]
        assert now == before
        return
    status, _, wish = after.partition(" ")
    assert (body["status"], body["wish"]) == (status, wish or None)
    assert (now.status.value, now.wish) == (status, wish or None)
    assert answer.status_code == (202 if wish else 200)
    assert answer.headers["etag"] == jobs.client.get(f"/v1/jobs/{job_id}").headers["etag"]
    trail = jobs.book.transitions(job_id)
    assert trail[-1].to_status.value == status
    # A state that was reached already is no transition.
    changed = before.status is not now.status
    assert trail[-1].reason == verb if changed else trail[-1].to_status is before.status


def test_the_table_is_whole() -> None:
    assert set(TABLE) == set(STATES)


@pytest.mark.parametrize("wishes", list(itertools.permutations(("cancel", "stop", "pause"))), ids=str)
@pytest.mark.parametrize("ends", ["released", "crashed"])
def test_the_strongest_wish_is_granted_in_any_order(jobs: Jobs, wishes: tuple[str, ...], ends: str) -> None:
    for most in range(1, 4):
        asked = wishes[:most]
        job_id = jobs.running(best=True)
        jobs.store_weights(job_id)
        for wish in asked:
            assert jobs.client.post(f"/v1/jobs/{job_id}/{wish}").status_code == 202
        strongest = min(asked, key=("cancel", "stop", "pause").index)
        assert jobs.client.get(f"/v1/jobs/{job_id}").json()["wish"] == strongest
        if ends == "released":
            jobs.book.release(job_id, 1)
        else:
            jobs.book.fail(job_id, 1, CRASH)
        granted = {"cancel": "cancelled", "stop": "succeeded", "pause": "paused"}[strongest]
        body = jobs.client.get(f"/v1/jobs/{job_id}").json()
        assert (body["status"], body["wish"]) == (granted, None)


@pytest.mark.parametrize("ends", ["released", "crashed"])
def test_a_stop_stands_until_the_weights_are_stored(jobs: Jobs, ends: str) -> None:
    job_id = jobs.running(best=True, wish="stop")
    if ends == "released":
        jobs.book.release(job_id, 1)
    else:
        jobs.book.fail(job_id, 1, CRASH)
    body = jobs.client.get(f"/v1/jobs/{job_id}").json()
    waits_for = "no_worker" if ends == "released" else "waiting_to_retry"
    assert (body["status"], body["wish"], body["waiting_reason"]) == ("queued", "stop", waits_for)
    again = jobs.client.post(f"/v1/jobs/{job_id}/stop").json()
    assert (again["status"], again["wish"], again["revision"]) == ("queued", "stop", body["revision"])


@pytest.mark.parametrize("wish", ["cancel", "stop", "pause"])
def test_a_finish_that_beats_the_wish_stands(jobs: Jobs, wish: str) -> None:
    job_id = jobs.running(best=True, wish=wish)
    jobs.book.finish(job_id, 1)
    assert jobs.client.get(f"/v1/jobs/{job_id}").json()["status"] == "succeeded"


def test_activating_ends_the_wait_before_a_retry(jobs: Jobs) -> None:
    job_id = jobs.after_failure()
    waiting = jobs.client.get(f"/v1/jobs/{job_id}").json()
    assert waiting["waiting_reason"] == "waiting_to_retry" and waiting["failures"] == 1
    assert waiting["estimated_start_at"] == waiting["not_before"] > waiting["created_at"] + 300
    activated = jobs.client.post(f"/v1/jobs/{job_id}/activate").json()
    assert (activated["not_before"], activated["waiting_reason"]) == (None, "no_worker")
    assert jobs.book.claim(activated["queue"], "w2") is not None


FINAL = ("succeeded", "succeeded with a best", "failed", "cancelled")


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


def test_another_owner_s_job_is_not_there(jobs: Jobs) -> None:
    job_id, stranger = jobs.queued(), jobs.world.other_user()
    before = jobs.book.get(job_id)
    asked = [("POST", f"/{verb}") for verb in (*VERBS, "rerun")] + [("DELETE", ""), ("PATCH", "")]
    for method, path in asked:
        for more in ({}, {"If-Match": "*"}):
            headers = {**stranger, **more}
            answer = jobs.client.request(method, f"/v1/jobs/{job_id}{path}", headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (404, "JOB_NOT_FOUND"), (method, path)
    assert jobs.book.get(job_id) == before


def test_an_administrator_reruns_for_the_owner(world: World, client: httpx.Client) -> None:
    owner = world.other_user()
    with httpx.Client(base_url=client.base_url, headers=owner) as theirs:
        job = a_job(world, theirs)
        again = client.post(job["links"]["rerun"])
        assert (again.status_code, again.json()["parent"]) == (201, job["id"])
        assert theirs.get(again.json()["links"]["self"]).status_code == 200


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
