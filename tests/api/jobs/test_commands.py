"""What people may wish of a job over HTTP: every wish in every state, and which of several is granted."""

from __future__ import annotations

import itertools

import pytest

from tests.support.job_states import CRASH, STATES, Jobs

VERBS = ("cancel", "stop", "pause", "activate")
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
