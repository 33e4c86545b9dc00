"""Datasets made of bytes that are here already, and archives that are looked at before they are read."""

from __future__ import annotations

import hashlib
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from api.domain import tables as t
from api.domain.datasets import put_ingest_error
from api.domain.failures import Failure, FailureCode
from api.domain.records import DatasetStatus, IngestResult, Task, TaskStatus
from api.domain.tasks import TaskBook
from api.uploads.tus import CONTENT_TYPE
from tests.support.service import ZIP_HEAD, World, an_architecture

BODY = ZIP_HEAD + b"ordered"
SHA256 = hashlib.sha256(BODY).hexdigest()
TUS = {"Tus-Resumable": "1.0.0", "Content-Type": CONTENT_TYPE}


def uploaded(client: httpx.Client, body: bytes = BODY, size: int | None = None) -> str:
    headers = TUS | {"Upload-Length": str(size or len(body))}
    answer = client.post("/v1/uploads", headers=headers, content=body)
    assert answer.status_code == 201, answer.text
    return str(answer.headers["location"]).rpartition("/")[2]


def order(client: httpx.Client, **body: Any) -> httpx.Response:
    return client.post("/v1/datasets", json=body)


def claimed(world: World) -> Task:
    task = TaskBook(world.store, world.settings).claim("ingest", "test")
    assert task is not None
    return task


def looked_at(world: World, status: DatasetStatus = DatasetStatus.INSPECTED) -> None:
    task = claimed(world)
    result = IngestResult(status, report_sha256="1" * 64, statistics={"images": 1}, classes=("a",))
    TaskBook(world.store, world.settings).finish_ingest(task.id, task.attempt, result)


def test_an_upload_becomes_a_dataset(world: World, client: httpx.Client) -> None:
    upload = uploaded(client)
    answer = order(client, name="a", upload=upload, options={"imgsz": 320, "classes": {"x": None}})
    assert answer.status_code == 202, answer.text
    made = answer.json()
    assert (made["sha256"], made["status"], made["options"]["imgsz"]) == (SHA256, "ingesting", 320)
    assert order(client, name="a", upload=upload, options=made["options"]).json()["id"] == made["id"]
    task = claimed(world)
    assert task.payload["options"]["classes"] == {"x": None}


def test_the_same_bytes_are_not_sent_twice(world: World, client: httpx.Client) -> None:
    assert order(client, name="b", sha256=SHA256).json()["code"] == "CONTENT_UNKNOWN"
    client.put("/v1/datasets", params={"name": "a"}, content=BODY)
    assert order(client, name="b", sha256=SHA256).status_code == 202
    stranger = client.post("/v1/datasets", json={"name": "b", "sha256": SHA256}, headers=world.other_user())
    assert (stranger.status_code, stranger.json()["code"]) == (404, "CONTENT_UNKNOWN")


def test_other_options_are_another_dataset(client: httpx.Client) -> None:
    upload = uploaded(client)
    assert order(client, name="a", upload=upload).status_code == 202
    answer = order(client, name="a", upload=upload, options={"imgsz": 320})
    assert (answer.status_code, answer.json()["code"]) == (409, "NAME_TAKEN")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "neither": ({"name": "a"}, ""),
    "both": ({"name": "a", "upload": "up_1", "sha256": SHA256}, ""),
    "name": ({"name": "a/b", "sha256": SHA256}, "/name"),
    "options": ({"name": "a", "sha256": SHA256, "options": {"imgsz": 1}}, "/options/imgsz"),
    "splits": (
        {"name": "a", "sha256": SHA256, "options": {"splits": {"train": 0.5, "val": 0.1}}},
        "/options/splits",
    ),
    "unknown": ({"name": "a", "sha256": SHA256, "x": 1}, "/x"),
}


@pytest.mark.parametrize(("body", "pointer"), REFUSED.values(), ids=REFUSED)
def test_orders_that_make_no_sense(untouched: httpx.Client, body: dict[str, Any], pointer: str) -> None:
    answer = order(untouched, **body)
    assert (answer.status_code, answer.json()["code"]) == (422, "REQUEST_INVALID")
    assert answer.json()["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000])
def test_json_that_is_none(untouched: httpx.Client, content: bytes) -> None:
    answer = untouched.post("/v1/datasets", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == (413 if len(content) > 20_000 else 422)


def test_a_body_without_a_name(untouched: httpx.Client) -> None:
    answer = untouched.put("/v1/datasets", content=BODY)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "name")


def test_what_is_no_upload_or_no_archive(client: httpx.Client) -> None:
    assert order(client, name="a", upload="up_1").json()["code"] == "UPLOAD_NOT_FOUND"
    assert order(client, name="a", upload=uploaded(client, size=1000)).json()["code"] == "UPLOAD_UNFINISHED"
    answer = order(client, name="a", upload=uploaded(client, b"no archive"))
    assert (answer.status_code, answer.json()["code"]) == (415, "NOT_AN_ARCHIVE")


def test_looked_at_then_read(world: World, client: httpx.Client) -> None:
    made = client.put("/v1/datasets", params={"name": "a", "inspect": "true"}, content=BODY).json()
    base = f"/v1/datasets/{made['id']}"
    assert client.post(f"{base}/confirm", json={}).json()["code"] == "NOT_CONFIRMABLE"
    looked_at(world)
    assert client.get(base).json()["status"] == "inspected"
    assert client.get(f"{base}/statistics").json() == {"images": 1}
    for _ in range(2):
        answer = client.post(f"{base}/confirm", json={"options": {"imgsz": 320, "inspect": True}})
        assert (answer.status_code, answer.json()["status"]) == (202, "ingesting")
    task = claimed(world)
    assert (task.payload["options"]["inspect"], task.payload["options"]["imgsz"]) == (False, 320)
    assert TaskBook(world.store, world.settings).claim("ingest", "test") is None


def test_what_was_chosen_when_it_was_looked_at_holds_unless_said_otherwise(
    world: World, client: httpx.Client
) -> None:
    chosen = {"inspect": True, "classes": {"kitten": "cat"}, "imgsz": 320}
    made = order(client, name="a", upload=uploaded(client), options=chosen).json()
    looked_at(world)
    assert client.post(f"/v1/datasets/{made['id']}/confirm").status_code == 202
    options = claimed(world).payload["options"]
    assert (options["inspect"], options["classes"], options["imgsz"]) == (False, {"kitten": "cat"}, 320)


def test_an_invalid_one_is_read_otherwise_and_a_ready_one_is_not(world: World, client: httpx.Client) -> None:
    made = client.put("/v1/datasets", params={"name": "a"}, content=BODY).json()
    looked_at(world, DatasetStatus.INVALID)
    assert client.post(f"/v1/datasets/{made['id']}/confirm", json={}).status_code == 202
    world.ingest(made["id"])
    assert client.post(f"/v1/datasets/{made['id']}/confirm", json={}).status_code == 409


def test_a_job_on_what_was_only_looked_at_is_refused(world: World, client: httpx.Client) -> None:
    made = client.put("/v1/datasets", params={"name": "a", "inspect": "true"}, content=BODY).json()
    looked_at(world)
    answer = client.post("/v1/jobs", json={"dataset": made["id"], "architecture": an_architecture(client)})
    assert (answer.status_code, answer.json()["code"]) == (409, "DATASET_NOT_CONFIRMED")
    assert answer.json()["errors"][0]["pointer"] == "/dataset"


def test_one_the_service_failed_at_is_retried_and_no_other(world: World, client: httpx.Client) -> None:
    made = client.put("/v1/datasets", params={"name": "a"}, content=BODY).json()
    base, tasks = f"/v1/datasets/{made['id']}", TaskBook(world.store, world.settings)
    cause = Failure(FailureCode.DISK_FULL, "the disk is full")

    def fail(conn: Connection) -> None:
        put_ingest_error(conn, made["id"], cause, now=0.0)
        conn.execute(sa.update(t.tasks).values(status=TaskStatus.FAILED))

    world.store.write(fail)
    assert client.get(base).json()["error"]["code"] == "SERVICE_ERROR"
    for _ in range(2):
        answer = client.post(f"{base}/retry")
        assert (answer.status_code, answer.json()["status"]) == (202, "ingesting"), answer.text
    assert client.get(base).json()["error"] is None
    looked_at(world, DatasetStatus.INVALID)
    assert tasks.claim("ingest", "test") is None
    answer = client.post(f"{base}/retry")
    assert (answer.status_code, answer.json()["code"]) == (409, "NOT_RETRYABLE")
    assert client.post("/v1/datasets/ds_none/retry").json()["code"] == "DATASET_NOT_FOUND"
