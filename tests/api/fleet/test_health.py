"""Whether the service is well, what it weighs at import, and that its description tells the truth."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.app import create_app
from api.domain.blobs import Blob
from api.domain.datasets import DatasetBook
from api.domain.fleet import WorkerBook
from api.domain.store import newest_revision
from api.domain.wire import ENVELOPE_VERSION
from api.loops.nudges import MemoryNudges
from tests.support.service import World, a_job, client_of, new_world, on_port, submitted
from tests.support.shared import ROOT
from tests.support.valkey import running_valkey

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
BOUNDED = settings(
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
IMPORT = """
import json, sys, time
began = time.process_time()
import api.app
took = time.process_time() - began
heavy = [name for name in ("torch", "cv2", "celery", "alembic", "scipy") if name in sys.modules]
# Not getrusage: there a process begins with the peak of the one it was forked from.
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
rss_kib = int(status["VmHWM"].split()[0])
print(json.dumps({"heavy": heavy, "cpu_s": took, "rss_kib": rss_kib}))
"""


def test_the_application_imports_nothing_heavy() -> None:
    out = subprocess.run(
        [sys.executable, "-c", IMPORT], cwd=ROOT, capture_output=True, check=True, timeout=60
    )
    figures = json.loads(out.stdout)
    assert figures["heavy"] == []
    # Watchdogs at a multiple of the targets (1 s, 120 MB); the figures themselves are printed by benchmarks.
    assert figures["cpu_s"] < 5
    assert figures["rss_kib"] < 200_000


@pytest.mark.usefixtures("books_in")
def test_health_needs_no_token_and_touches_nothing(tmp_path: Path) -> None:
    with new_world(tmp_path) as world, on_port(world) as address:
        shutil.rmtree(world.settings.data_dir)
        assert httpx.get(f"{address}/healthz").json() == {"status": "ok"}


@pytest.mark.usefixtures("books_in")
def test_ready_without_redis_is_degraded_and_with_it_ready(tmp_path: Path) -> None:
    with new_world(tmp_path / "a") as world, client_of(world) as client:
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    with (
        running_valkey() as valkey,
        new_world(tmp_path / "b", valkey.url) as world,
        client_of(world) as client,
    ):
        answer = client.get("/readyz")
        while answer.json()["checks"]["redis"] != "ok":
            answer = client.get("/readyz")
        assert answer.json()["status"] == "ready"


@pytest.mark.usefixtures("books_in")
def test_without_storage_or_migrations_it_is_unavailable(tmp_path: Path) -> None:
    with new_world(tmp_path) as world, on_port(world) as address:
        with world.store.engine.begin() as conn:
            conn.exec_driver_sql("UPDATE alembic_version SET version_num = 'older'")
        shutil.rmtree(world.settings.blobs_dir)
        answer = httpx.get(f"{address}/readyz")
        assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
        assert answer.json()["checks"]["database"] == "needs migration"
        assert answer.json()["checks"]["storage"].startswith("cannot be written")


@pytest.mark.usefixtures("books_in")
def test_a_loop_in_trouble_degrades_and_is_named(tmp_path: Path) -> None:
    nudges = MemoryNudges()
    nudges.away = True

    async def watch(world: World) -> None:
        app = create_app(world.settings, nudges=nudges)
        wire = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=wire, base_url="http://127.0.0.1") as client,
        ):
            for state in ("failing, see the log", "ok"):
                answer = await client.get("/readyz")
                while answer.json()["checks"]["dispatcher"] != state:
                    answer = await client.get("/readyz")
                assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
                assert answer.json()["checks"]["reaper"] == "ok"
                nudges.away = False

    with new_world(tmp_path) as world:
        DatasetBook(world.store).create("pr_1", "ds", Blob("0" * 64, 1), file_name="ds.zip")
        asyncio.run(asyncio.wait_for(watch(world), 20))


def test_workers_are_listed(world: World, client: httpx.Client) -> None:
    WorkerBook(world.store).announce("w1", queue="train.cpu", host="here", pid=7, version="1")
    (worker,) = client.get("/v1/workers").json()["items"]
    assert (worker["id"], worker["state"], worker["host"]) == ("w1", "idle", "here")


def test_an_unhealthy_worker_says_why_until_a_person_has_looked(world: World, client: httpx.Client) -> None:
    book, slot = WorkerBook(world.store), {"queue": "train.g1", "host": "h", "pid": 7, "version": "1"}
    book.announce("h/train.g1/0", state="unhealthy", reason="memory of the GPU is not freed", **slot)
    book.announce("h/train.g1/0", state="gone", **slot)
    (worker,) = client.get("/v1/workers").json()["items"]
    assert (worker["state"], worker["reason"]) == ("unhealthy", "memory of the GPU is not freed")
    assert worker["unhealthy_since"] > 0
    url = "/v1/workers/h/train.g1/0/clear"
    refused = client.post(url, headers=world.other_user())
    assert (refused.status_code, refused.json()["code"]) == (403, "SCOPE_MISSING")
    assert book.unhealthy("h/train.g1/0")
    cleared = client.post(url)
    assert (cleared.status_code, cleared.json()["reason"]) == (200, None)
    assert book.unhealthy("h/train.g1/0") is None


def test_queues_tell_what_waits_runs_and_works(world: World, client: httpx.Client) -> None:
    assert client.get("/v1/queues").json() == {"items": []}
    job = a_job(world, client)
    body = {"dataset": job["dataset"], "architecture": job["architecture"]}
    for queue in ("train.cpu", "train.cpu", "train.g2"):
        submitted(client, {**body, "queue": queue})
    claim = world.claim()
    workers = WorkerBook(world.store)
    for number, state in enumerate(("busy", "idle", "gone")):
        workers.announce(
            f"h/train.cpu/{number}", queue="train.cpu", host="h", pid=1, version="1", state=state
        )
    cpu, gpu = client.get("/v1/queues").json()["items"]
    expected = {"name": "train.cpu", "queued": 2, "running": 1, "workers": 2, "idle": 1, "median_run_s": None}
    assert cpu == expected
    assert gpu == {**expected, "name": "train.g2", "queued": 1, "running": 0, "workers": 0, "idle": 0}
    world.jobs.finish(claim.job.id, claim.attempt)
    cpu, _ = client.get("/v1/queues").json()["items"]
    assert cpu["running"] == 0 and 0 < cpu["median_run_s"] < 60


def test_the_version_is_told(client: httpx.Client) -> None:
    answer = client.get("/version")
    told = answer.json()
    assert (told["api"], told["schema"], told["events"]) == ("v1", newest_revision(), ENVELOPE_VERSION)
    assert answer.headers["trainshed-version"] == told["version"] == version("trainshed")


def test_the_description_has_one_error_shape_and_says_where_tokens_are_needed(client: httpx.Client) -> None:
    schema = client.get("/openapi.json").json()
    assert "HTTPValidationError" not in schema["components"]["schemas"]
    for path, item in schema["paths"].items():
        for method, operation in item.items():
            assert operation["summary"], (method, path)
            assert "application/problem+json" in operation["responses"]["default"]["content"]
            public = not path.startswith("/v1/") or (path, method) == ("/v1/session", "post")
            assert ("security" in operation) is not public, (method, path)


@schemathesis.serializer("application/offset+octet-stream")
def _piece_of_an_upload(_: schemathesis.SerializationContext, value: Any) -> dict[str, Any]:
    return {"data": value if isinstance(value, bytes) else str(value).encode()}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("num_examples", [12, pytest.param(80, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("books_in")
def test_answers_are_as_described(num_examples: int, tmp_path: Path) -> None:
    """Throw generated requests at every operation but the streams; compare answers with the description."""
    with new_world(tmp_path) as world, on_port(world) as address:
        schema = schemathesis.openapi.from_url(f"{address}/openapi.json").exclude(path_regex=r"events$")
        statuses: Counter[int] = Counter()

        def probe(case: schemathesis.Case) -> None:
            headers = {**(case.headers or {}), **world.headers}
            # Waiting is tested elsewhere, and would only take time here.
            headers.pop("Prefer", None)
            answer = case.call_and_validate(base_url=address, headers=headers, checks=CHECKS, timeout=20)
            statuses[answer.status_code] += 1

        operations = [result.ok() for result in schema.get_all_operations()]
        for operation in operations:
            settings(BOUNDED, max_examples=num_examples)(given(case=operation.as_strategy())(probe))()
        assert len(operations) > 25
        assert statuses[200] > 25
        assert statuses[401] <= num_examples, "only the opening of a session"
