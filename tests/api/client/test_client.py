"""The client against a scripted server: requests as promised, errors by kind, gap-free streams."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.client import ApiError, Client, NotAllowedError, NotEndedError, UnreachableError
from api.client.errors import IntegrityError
from api.client.follow import follow
from api.client.sse import Message, messages
from tests.api.client.fake_service import BROKEN, TOKEN, VERBS, WEIGHTS, FakeService, event_text, running

PING = b": ping\n\n"


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def client(service: FakeService) -> Iterator[Client]:
    with running(service) as url, Client(url, TOKEN) as client:
        yield client


def test_an_upload_carries_its_digest_and_reports_progress(
    service: FakeService, client: Client, tmp_path: Path
) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(b"x" * 600_000)
    seen: list[tuple[int, int]] = []
    dataset = client.push_dataset(archive, "cells", lambda done, total: seen.append((done, total)))
    assert dataset.id == "ds_1" and dataset.status == "ingesting"
    (headers, body) = service.asked("PUT", "/v1/datasets")[0]
    digest = base64.b64encode(hashlib.sha256(archive.read_bytes()).digest()).decode()
    assert headers["repr-digest"] == f"sha-256=:{digest}:"
    assert headers["content-length"] == "600000" and body == archive.read_bytes()
    assert seen[-1] == (600_000, 600_000) and len(seen) > 1


def test_pages_are_followed(client: Client) -> None:
    assert [job.id for job in client.jobs()] == ["job_0", "job_1"]


def test_checks_and_differences_say_by_what(service: FakeService, client: Client) -> None:
    client.check_architecture("nc: 1", 2, imgsz=320, dataset="ds_1")
    assert client.diff_datasets("ds_1", "ds_2")["images_added"]["count"] == 1
    assert client.diff_architectures("arch_1", "yolov5n") == {"rows": []}
    paths = [path for _, path, _, _ in service.requests]
    assert paths == [
        "/v1/architectures/check?num_classes=2&imgsz=320&dataset=ds_1",
        "/v1/datasets/ds_1/diff?other=ds_2",
        "/v1/architectures/arch_1/diff?other=yolov5n&imgsz=640",
    ]


def test_a_submission_carries_its_key(service: FakeService, client: Client) -> None:
    job = client.submit({"dataset": "ds_1", "architecture": "arch_1", "config": {}}, idempotency_key="k")
    headers, body = service.asked("POST", "/v1/jobs")[0]
    assert job.id == "job_1" and headers["idempotency-key"] == "k"
    assert json.loads(body)["dataset"] == "ds_1"


def test_wishes_are_sent_and_answered(service: FakeService, client: Client) -> None:
    asked = [client.cancel("job_1"), client.stop("job_1"), client.pause("job_1"), client.activate("job_1")]
    assert [job.wish for job in asked] == ["cancel", "stop", "pause", None]
    assert [path.rpartition("/")[2] for _, path, _, _ in service.requests] == [*VERBS, "activate"]


def test_an_edit_says_what_it_was_made_on(service: FakeService, client: Client) -> None:
    assert client.edit("job_1", {"priority": 5}).priority == 5
    client.edit("job_1", {"tags": []}, revision=7)
    (blind, body), (bound, _) = service.asked("PATCH", "/v1/jobs/job_1")
    assert (blind["if-match"], json.loads(body), bound["if-match"]) == ("*", {"priority": 5}, '"7"')


def test_a_rerun_carries_its_edits_and_key(service: FakeService, client: Client) -> None:
    assert client.rerun("job_1").parent == "job_1"
    client.rerun("job_1", {"config": {"epochs": 9}}, idempotency_key="k")
    (plain, nothing), (keyed, edits) = service.asked("POST", "/v1/jobs/job_1/rerun")
    assert "idempotency-key" not in plain and json.loads(nothing) == {}
    assert keyed["idempotency-key"] == "k" and json.loads(edits) == {"config": {"epochs": 9}}


def test_attempts_workers_and_queues(service: FakeService, client: Client) -> None:
    (attempt,), (worker,), (queue,) = client.attempts("job_1"), client.workers(), client.queues()
    assert (attempt.code, worker.id, queue.queued) == ("CRASHED", "h/train.g1/0", 2)
    assert client.clear_worker("h/train.g1/0").state == "idle"
    client.delete_job("job_1")
    assert len(service.asked("DELETE", "/v1/jobs/job_1")) == 1


def test_a_download_is_checked_and_appears_whole(client: Client, tmp_path: Path) -> None:
    (artifact,) = client.artifacts("job_1")
    path = client.download("job_1", artifact, tmp_path / "deep" / "best.pt")
    assert path.read_bytes() == WEIGHTS
    wrong = artifact.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(IntegrityError):
        client.download("job_1", wrong, tmp_path / "wrong.pt")
    assert [p.name for p in tmp_path.iterdir()] == ["deep"]


def test_wrong_token_is_not_allowed(service: FakeService) -> None:
    with running(service) as url, Client(url, "ts_wrong") as client, pytest.raises(NotAllowedError) as caught:
        client.job("job_1")
    assert caught.value.code == "TOKEN_INVALID" and caught.value.status == 401


def test_a_problem_keeps_its_places(service: FakeService, client: Client) -> None:
    service.refuse = (422, {"title": "t", "code": "CONFIG_INVALID", "errors": [{"pointer": "/epochs"}]})
    with pytest.raises(ApiError) as caught:
        client.job("job_1")
    assert caught.value.errors == [{"pointer": "/epochs"}]


def test_nobody_there_is_unreachable() -> None:
    with Client("http://127.0.0.1:9", TOKEN) as client, pytest.raises(UnreachableError):
        client.job("job_1")


def test_waiting_ends_at_its_time(service: FakeService, client: Client) -> None:
    service.final = service.job | {"status": "running"}
    with pytest.raises(TimeoutError):
        client.wait_for_job("job_1", timeout_s=0.3)


@pytest.mark.parametrize("failures", [[503, 500], [429], [BROKEN]], ids=str)
def test_waiting_outlasts_a_service_that_is_away(
    failures: list[int], service: FakeService, client: Client
) -> None:
    service.failing = {path: list(failures) for path in ("/v1/jobs/job_1", "/v1/datasets/ds_1")}
    assert client.wait_for_job("job_1").status == "succeeded"
    assert client.wait_for_dataset("ds_1").status == "ready"
    assert len(service.asked("GET", "/v1/jobs/job_1")) == len(failures) + 1


def test_waiting_gives_up_in_the_end_and_at_once_on_a_refusal(service: FakeService, client: Client) -> None:
    service.failing = {"/v1/jobs/job_1": [503] * 50}
    with pytest.raises(ApiError) as caught:
        client.wait_for_job("job_1", give_up_s=0.3)
    assert caught.value.status == 503
    service.failing = {"/v1/jobs/job_1": [404]}
    with pytest.raises(ApiError):
        client.wait_for_job("job_1")
    assert service.failing == {"/v1/jobs/job_1": []}


def test_a_wait_that_is_over_tells_the_job(service: FakeService, client: Client) -> None:
    service.final = service.job | {"status": "running"}
    with pytest.raises(NotEndedError, match="job_1 .* is running") as caught:
        client.wait_for_job("job_1", timeout_s=0.3)
    assert caught.value.job is not None and caught.value.job.id == "job_1"


def test_a_cut_stream_is_resumed_after_the_last_id(service: FakeService, client: Client) -> None:
    snapshot = event_text("job", {"status": "running"})
    service.streams = [
        [snapshot, event_text("batch", {"n": 1}, "1-1"), b"id: 1-2\nevent: batch\ndata: {"],
        [snapshot, event_text("batch", {"n": 2}, "1-2"), event_text("lagged", {})],
        [snapshot, event_text("epoch", {"n": 3}, "1-3"), event_text("end", {})],
    ]
    events = list(follow(client, "job_1"))
    assert [e.id for e in events if e.id] == ["1-1", "1-2", "1-3"]
    assert events[-1].type == "end"
    asked = [headers.get("last-event-id") for headers, _ in service.asked("GET", "/v1/jobs/job_1/events")]
    assert asked == [None, "1-1", "1-2"]


def test_a_finished_and_read_job_ends_at_once(client: Client) -> None:
    assert [event.type for event in follow(client, "job_1", after="1-9")] == ["end"]


def test_following_ends_at_the_deadline_though_nothing_comes(service: FakeService, client: Client) -> None:
    service.streams = [[event_text("job", {"status": "running"}), b"hang"]]
    with pytest.raises(TimeoutError):
        list(follow(client, "job_1", deadline=time.monotonic() + 0.5))


@pytest.mark.parametrize(
    "silence",
    [[PING, 0.05] * 40 + [b"hang"], [0.7, PING, b"hang"]],
    ids=["pinged", "pinged once"],
)
def test_pings_do_not_put_off_the_deadline(
    silence: list[bytes | float], service: FakeService, client: Client
) -> None:
    service.streams = [[event_text("job", {"status": "running"}), *silence]]
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        list(follow(client, "job_1", deadline=began + 0.8))
    assert 0.8 <= time.monotonic() - began < 1.3


def test_pauses_between_attempts_end_at_the_deadline() -> None:
    began = time.monotonic()
    with Client("http://127.0.0.1:9", TOKEN) as client, pytest.raises(TimeoutError):
        list(follow(client, "job_1", deadline=began + 0.8))
    assert time.monotonic() - began < 1.2


@pytest.mark.parametrize("silence", [[PING, 0.1] * 5, [0.5]], ids=["pings", "nothing"])
def test_patience_counts_from_the_loss_of_the_connection(
    silence: list[bytes | float], service: FakeService, client: Client
) -> None:
    service.streams = [
        [event_text("batch", {"n": 1}, "1-1"), *silence],
        [event_text("batch", {"n": 2}, "1-2"), event_text("end", {})],
    ]
    events = list(follow(client, "job_1", give_up_s=0.3))
    assert [event.type for event in events] == ["batch", "batch", "end"]


def test_connections_without_a_word_are_given_up(service: FakeService, client: Client) -> None:
    service.streams = [[] for _ in range(20)]
    with pytest.raises(UnreachableError):
        list(follow(client, "job_1", give_up_s=0.3))


def test_an_event_that_is_no_json_is_no_crash(service: FakeService, client: Client) -> None:
    service.streams = [[b"event: batch\ndata: {\n\n"], [event_text("end", {})]]
    assert [event.type for event in follow(client, "job_1")] == ["end"]


def test_following_gives_up_on_a_service_that_stays_away(service: FakeService) -> None:
    with Client("http://127.0.0.1:9", TOKEN) as client, pytest.raises(UnreachableError):
        list(follow(client, "job_1", give_up_s=0.3))


def test_a_refusal_is_not_tried_again(service: FakeService, client: Client) -> None:
    service.refuse = (404, {"title": "t", "code": "NOT_FOUND"})
    with pytest.raises(ApiError):
        list(follow(client, "job_1"))
    assert len(service.asked("GET", "/v1/jobs/job_1/events")) == 1


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["data: a", ""], [Message("message", "a", None)]),
        (["event: x", "id: 3", "data: a", "data: b", ""], [Message("x", "a\nb", "3")]),
        ([": ping", "", "data:a", ""], [Message("message", "a", None)]),
        (["event: x", "", "data: a", ""], [Message("message", "a", None)]),
        (["data: cut"], []),
        (["id: a\0b", "data: a", ""], [Message("message", "a", None)]),
    ],
)
def test_event_stream_grammar(lines: list[str], found: list[Message]) -> None:
    assert list(messages(lines)) == found
