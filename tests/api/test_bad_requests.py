"""Every bad request that HTTP can carry: a problem with code, place and value, and nothing half-done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.support.service import ZIP_HEAD, World, a_dataset, an_architecture, model_text

SHAPE = {"type", "title", "status", "detail", "code", "errors", "instance"}


@dataclass(frozen=True)
class Bad:
    """A request, and the problem it deserves; `place` is what the first entry of errors must hold."""

    name: str
    method: str
    path: str
    status: int
    code: str
    place: dict[str, Any] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


class Chunked:
    """A body without a Content-Length; it can be sent more than once."""

    def __init__(self, total: int, size: int = 50_000) -> None:
        self.total, self.size = total, size

    def __iter__(self) -> Iterator[bytes]:
        yield ZIP_HEAD
        for _ in range(self.total // self.size):
            yield b"\0" * self.size


YAML_NAME = "/v1/architectures?name=x"
UNKNOWN_MODULE = model_text().replace("SPPF", "Frobnicate")
HEADER = "nc: 2\ndepth_multiple: 1\nwidth_multiple: 1\nanchors: 3\n"
CASES = [
    Bad("unknown path", "GET", "/v1/nothing", 404, "NOT_FOUND"),
    Bad("unknown path at the root", "GET", "/etc/passwd", 404, "NOT_FOUND"),
    Bad("wrong method", "PUT", "/v1/jobs", 405, "METHOD_NOT_ALLOWED"),
    Bad("unknown job", "GET", "/v1/jobs/job_0", 404, "JOB_NOT_FOUND"),
    Bad("unknown job's metrics", "GET", "/v1/jobs/job_0/metrics", 404, "JOB_NOT_FOUND"),
    Bad("unknown job's csv", "GET", "/v1/jobs/job_0/metrics.csv", 404, "JOB_NOT_FOUND"),
    Bad("unknown job's log", "GET", "/v1/jobs/job_0/log", 404, "JOB_NOT_FOUND"),
    Bad("unknown job's events", "GET", "/v1/jobs/job_0/events", 404, "JOB_NOT_FOUND"),
    Bad("unknown job in a list", "GET", "/v1/events?job=job_0", 404, "JOB_NOT_FOUND"),
    Bad("unknown job's artifacts", "GET", "/v1/jobs/job_0/artifacts/best.pt", 404, "JOB_NOT_FOUND"),
    *(
        Bad(f"unknown job: {verb}", "POST", f"/v1/jobs/job_0/{verb}", 404, "JOB_NOT_FOUND")
        for verb in ("cancel", "stop", "pause", "activate", "rerun")
    ),
    Bad("unknown job edited", "PATCH", "/v1/jobs/job_0", 404, "JOB_NOT_FOUND"),
    Bad("unknown job deleted", "DELETE", "/v1/jobs/job_0", 404, "JOB_NOT_FOUND"),
    Bad("unknown wish", "POST", "/v1/jobs/job_0/explode", 404, "NOT_FOUND"),
    Bad("wish by another method", "GET", "/v1/jobs/job_0/stop", 405, "METHOD_NOT_ALLOWED"),
    *(
        Bad(
            f"edit of {field!r}",
            "PATCH",
            "/v1/jobs/job_0",
            422,
            "REQUEST_INVALID",
            {"pointer": f"/{field}"},
            {"json": {field: value}},
        )
        for field, value in {
            "priority": 1001,
            "name": "",
            "tags": "x",
            "status": "succeeded",
            "queue": "train.cpu",
        }.items()
    ),
    Bad("edit that is a list", "PATCH", "/v1/jobs/job_0", 422, "REQUEST_INVALID", {}, {"json": []}),
    *(
        Bad(
            f"submission with {field} {value!r}",
            "POST",
            "/v1/jobs",
            422,
            "REQUEST_INVALID",
            {"pointer": f"/{field}"},
            {"json": {"dataset": "d", "architecture": "a", field: value}},
        )
        for field, value in (
            ("priority", -1001),
            ("priority", 0.5),
            ("max_runtime_s", 0),
            ("max_runtime_s", 10**12),
            ("parent", "job_0"),
            ("simulated", True),
        )
    ),
    Bad("unknown worker cleared", "POST", "/v1/workers/h/train.cpu/0/clear", 404, "WORKER_NOT_FOUND"),
    Bad("unknown dataset", "GET", "/v1/datasets/ds_0", 404, "DATASET_NOT_FOUND"),
    Bad("unknown dataset's problems", "GET", "/v1/datasets/ds_0/problems", 404, "DATASET_NOT_FOUND"),
    Bad("unknown dataset deleted", "DELETE", "/v1/datasets/ds_0", 404, "DATASET_NOT_FOUND"),
    Bad("unknown architecture", "GET", "/v1/architectures/arch_0", 404, "ARCHITECTURE_NOT_FOUND"),
    Bad("made-up cursor", "GET", "/v1/jobs?cursor=abc", 422, "BAD_CURSOR", {"pointer": "cursor"}),
    Bad("limit too large", "GET", "/v1/jobs?limit=501", 422, "REQUEST_INVALID", {"pointer": "limit"}),
    Bad("unknown state", "GET", "/v1/jobs?status=dead", 422, "REQUEST_INVALID", {"value": "'dead'"}),
    Bad("no dataset name", "PUT", "/v1/datasets", 422, "REQUEST_INVALID", {"pointer": "name"}),
    Bad(
        "dataset name is a path", "PUT", "/v1/datasets?name=../x", 422, "REQUEST_INVALID", {"value": "'../x'"}
    ),
    Bad(
        "not a zip",
        "PUT",
        "/v1/datasets?name=x",
        415,
        "NOT_AN_ARCHIVE",
        {"pointer": ""},
        {"content": b"hello"},
    ),
    Bad("empty upload", "POST", "/v1/datasets?name=x", 415, "NOT_AN_ARCHIVE"),
    Bad(
        "upload over the limit",
        "PUT",
        "/v1/datasets?name=x",
        413,
        "CONTENT_TOO_LARGE",
        more={"content": ZIP_HEAD + b"\0" * 300_000},
    ),
    Bad(
        "upload over the limit without saying so",
        "PUT",
        "/v1/datasets?name=x",
        413,
        "CONTENT_TOO_LARGE",
        more={"content": Chunked(1_000_000)},
    ),
    Bad(
        "upload is not what its digest says",
        "PUT",
        "/v1/datasets?name=x",
        422,
        "DIGEST_MISMATCH",
        {"pointer": "Repr-Digest"},
        {"content": ZIP_HEAD, "headers": {"Repr-Digest": "sha-256=:" + "A" * 43 + "=:"}},
    ),
    Bad(
        "digest cannot be read",
        "PUT",
        "/v1/datasets?name=x",
        400,
        "DIGEST_UNREADABLE",
        {"pointer": "Repr-Digest"},
        {"content": ZIP_HEAD, "headers": {"Repr-Digest": "md5=abc"}},
    ),
    Bad(
        "bad YAML",
        "POST",
        YAML_NAME,
        422,
        "ARCHITECTURE_INVALID",
        {"line": 2},
        {"content": "nc: 1\nx: }\n"},
    ),
    Bad("empty YAML", "POST", YAML_NAME, 422, "ARCHITECTURE_INVALID", {}, {"content": ""}),
    Bad(
        "YAML not in UTF-8",
        "POST",
        YAML_NAME,
        422,
        "ARCHITECTURE_INVALID",
        {"line": 2},
        {"content": b"a: 1\n\xff"},
    ),
    Bad("YAML too large", "POST", YAML_NAME, 413, "CONTENT_TOO_LARGE", {}, {"content": b"#" * 20_001}),
    Bad(
        "unknown module",
        "POST",
        "/v1/architectures/check",
        422,
        "ARCHITECTURE_INVALID",
        {"line": next(n for n, text in enumerate(UNKNOWN_MODULE.splitlines(), 1) if "Frobnicate" in text)},
        {"content": UNKNOWN_MODULE},
    ),
    Bad(
        "expression in YAML",
        "POST",
        YAML_NAME,
        422,
        "ARCHITECTURE_INVALID",
        {"line": 6},
        {
            "content": HEADER
            + "backbone:\n  - [-1, 1, Conv, [\"__import__('os').getpid()\", 3, 2]]\nhead: []\n"
        },
    ),
    Bad(
        "from points nowhere",
        "POST",
        YAML_NAME,
        422,
        "ARCHITECTURE_INVALID",
        {"line": 6},
        {
            "content": HEADER
            + "backbone:\n  - [7, 1, Conv, [16, 3, 2]]\nhead:\n  - [[0], 1, Detect, [nc, anchors]]\n"
        },
    ),
    Bad("not JSON", "POST", "/v1/jobs", 422, "REQUEST_INVALID", {"pointer": ""}, {"content": b"{"}),
    Bad("JSON too large", "POST", "/v1/jobs", 413, "CONTENT_TOO_LARGE", {}, {"content": b" " * 20_001}),
    Bad(
        "nothing submitted", "POST", "/v1/jobs", 422, "REQUEST_INVALID", {"pointer": "/dataset"}, {"json": {}}
    ),
    Bad(
        "unknown key in a submission",
        "POST",
        "/v1/jobs",
        422,
        "REQUEST_INVALID",
        {"pointer": "/datasett"},
        {"json": {"dataset": "d", "architecture": "a", "datasett": "x"}},
    ),
    *(
        Bad(
            f"queue named {queue!r}",
            "POST",
            "/v1/jobs",
            422,
            "REQUEST_INVALID",
            {"pointer": "/queue"},
            {"json": {"dataset": "d", "architecture": "a", "queue": queue}},
        )
        for queue in ("ingest", "_kombu.binding.train.cpu", "train.cpu\n", "train.g0", "train.g100", "")
    ),
    Bad("thin metrics to one", "GET", "/v1/jobs/x/metrics?max_points=1", 422, "REQUEST_INVALID"),
    Bad(
        "unknown key in a session", "POST", "/v1/session", 422, "REQUEST_INVALID", {}, {"json": {"tokn": "x"}}
    ),
]


def send(client: httpx.Client, case: Bad) -> Any:
    headers = {"Content-Type": "application/json", **case.more.get("headers", {})}
    more = {key: value for key, value in case.more.items() if key != "headers"}
    return client.request(case.method, case.path, headers=headers, **more)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_bad_request(untouched_world: World, untouched: httpx.Client, case: Bad) -> None:
    answer = send(untouched, case)
    body = answer.json()
    assert answer.status_code == case.status, body
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(body) <= SHAPE
    assert body["code"] == case.code
    assert body["status"] == case.status
    if case.place:
        assert case.place.items() <= body["errors"][0].items(), body["errors"]
    assert "Traceback" not in answer.text
    assert untouched_world.num_datasets() == 0
    assert untouched_world.files() == [], "nothing half-written"


BAD_CONFIGS: list[tuple[dict[str, Any], str, str]] = [
    ({"epochs": 0}, "/config/epochs", "0"),
    ({"imgsz": 31}, "/config/imgsz", "31"),
    ({"batch": "many"}, "/config/batch", "'many'"),
    ({"epoch": 3}, "/config/epoch", "3"),
    ({"lr0": 0.1}, "/config/lr0", "0.1"),
    ({"hyp": {"mosaic": 2}}, "/config/hyp/mosaic", "2"),
    ({"hyp": {"mosaik": 1}}, "/config/hyp/mosaik", "1"),
    ({"preset": "scratch-huge"}, "/config/preset", "'scratch-huge'"),
    ({"runtime": {"device": "tpu"}}, "/config/runtime/device", "'tpu'"),
]


def test_bad_configs(world: World, client: httpx.Client) -> None:
    good = {"dataset": a_dataset(world, client), "architecture": an_architecture(client)}
    for config, pointer, value in BAD_CONFIGS:
        answer = client.post("/v1/jobs", json={**good, "config": config})
        assert answer.status_code == 422, config
        assert answer.json()["code"] == "CONFIG_INVALID"
        first = answer.json()["errors"][0]
        assert (first["pointer"], first["value"]) == (pointer, value)
    assert client.get("/v1/jobs").json()["items"] == []


def test_references_that_lead_nowhere_are_named_by_pointer(world: World, client: httpx.Client) -> None:
    good = {"dataset": a_dataset(world, client), "architecture": an_architecture(client)}
    for key in good:
        answer = client.post("/v1/jobs", json={**good, key: "gone_1"})
        assert answer.status_code == 422
        assert answer.json()["errors"][0] == {
            "pointer": f"/{key}",
            "message": f"no {key} 'gone_1'",
            "value": "gone_1",
        }


def test_a_segmenter_cannot_be_trained(world: World, client: httpx.Client) -> None:
    text = model_text().replace("Detect, [nc, anchors]", "Segment, [nc, anchors, 32, 256]")
    body = {"dataset": a_dataset(world, client), "architecture": an_architecture(client, text=text)}
    answer = client.post("/v1/jobs", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "HEAD_NOT_TRAINABLE")


@pytest.mark.parametrize(
    ("config", "anchors", "pointer"),
    [
        ({"freeze": [2, 99]}, "anchors", "/config/freeze"),
        ({"autoanchor": False}, "3", "/config/autoanchor"),
        ({"quad": True, "batch": 6}, "anchors", "/config/quad"),
    ],
)
def test_a_configuration_that_the_model_or_itself_contradicts_is_refused_with_its_place(
    world: World, client: httpx.Client, config: dict[str, Any], anchors: str, pointer: str
) -> None:
    text = model_text().replace("Detect, [nc, anchors]", f"Detect, [nc, {anchors}]")
    body = {"dataset": a_dataset(world, client), "architecture": an_architecture(client, text=text)}
    answer = client.post("/v1/jobs", json={**body, "config": config})
    assert (answer.status_code, answer.json()["code"]) == (422, "CONFIG_INVALID")
    assert answer.json()["errors"][0]["pointer"] == pointer


def test_an_invalid_dataset_is_a_conflict_that_leads_to_its_report(
    world: World, client: httpx.Client
) -> None:
    dataset = a_dataset(world, client, ready=False)
    world.condemn(dataset, "3" * 64)
    answer = client.post("/v1/jobs", json={"dataset": dataset, "architecture": an_architecture(client)})
    assert (answer.status_code, answer.json()["code"]) == (409, "DATASET_INVALID")
    assert f"/v1/datasets/{dataset}/problems" in answer.json()["detail"]


def test_a_fault_of_ours_shows_no_stack_trace(world: World, client: httpx.Client) -> None:
    dataset = a_dataset(world, client, ready=False)
    world.condemn(dataset, "3" * 64)
    answer = client.get(f"/v1/datasets/{dataset}/problems")
    assert answer.status_code == 500, "the report's blob is missing"
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "INTERNAL"
    assert "Traceback" not in answer.text
    assert str(world.settings.data_dir) not in answer.text
