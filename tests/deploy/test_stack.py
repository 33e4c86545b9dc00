"""The service in containers, really run: docs/deploy.md typed from its first line to its last, and faults.

One stack on the periods of production trains, loses a worker, its Redis, and all its containers, is backed
up, and comes back in another project. The tests build on each other and run in the order of the file.
"""

from __future__ import annotations

import hashlib
import shutil
import signal
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.client import Client, ClientError, Job
from api.client.follow import follow
from tests.chaos.watching import Watcher, in_short, position, that_count
from tests.support.containers import (
    Containers,
    closed_at_the_end,
    copy_project,
    need_engine,
    run,
    say,
    until,
)
from tests.support.shared import datasets_dir, missing

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(3600)]

SERVICES = ("postgres", "redis", "api", "ingest", "worker")
OWN = ("api", "ingest", "worker")
RUN_S = 240.0
PATIENCE_S = 1800.0
SEEN_S = 30.0
TERMINATED = 128 + signal.SIGTERM  # before it could listen; 137 would be one that had to be killed
CONFIG = {"imgsz": 160, "batch": 8, "save_period": -1}


@dataclass
class Server:
    """A stack, one to restore into, and what the tests found out so far."""

    stack: Containers
    other: Containers
    jobs: dict[str, Job] = field(default_factory=dict)

    def client(self) -> Client:
        """Open a client of the stack."""
        return self.stack.client()


def small_dataset() -> Path:
    """Return the smallest archive in YOLO form among the photographs."""

    def is_yolo(path: Path) -> bool:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        return any(name.endswith(".txt") and "labels" in Path(name).parts for name in names)

    found = [path for path in datasets_dir().glob("*.zip") if is_yolo(path)]
    if not found:
        missing("shared", "no zip in YOLO form among the datasets")
    return min(found, key=lambda path: path.stat().st_size)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two copies of the project, nothing started; nothing of either is left at the end."""
    root = tmp_path_factory.mktemp("deploy")
    path = need_engine(root)
    dataset = small_dataset()
    copy_project(root / "server")
    shutil.copytree(root / "server", root / "other")
    shutil.copy(dataset, root / "server" / "my_dataset.zip")
    stack = Containers(root / "server", "trainshed-test", path=path, TRAINSHED_PROXIES="*")
    other = Containers(root / "other", "trainshed-test-other", path=path)
    with closed_at_the_end(stack, other):
        try:
            yield Server(stack, other)
        except BaseException:
            say(stack.compose("ps", check=False))
            raise


def test_it_refuses_to_start_without_passwords(server: Server) -> None:
    shutil.copy(server.stack.folder / "docker" / "env.example", server.stack.folder / ".env")
    refusal = server.stack.compose("up -d", check=False)
    assert "docker/env.example" in refusal
    assert [service for service in SERVICES if server.stack.ids(service)] == []


def test_from_nothing_to_a_first_training(server: Server) -> None:
    stack = server.stack
    stack.shell("settings")
    stack.shell("start", timeout_s=3000)
    stack.environment["TRAINSHED_TOKEN"] = stack.shell("token", after='echo "$TRAINSHED_TOKEN"').strip()
    told = stack.shell("token", "command", "train", after='echo "JOB=$JOB"', timeout_s=900)
    job_id = told.rsplit("JOB=", 1)[1].strip()
    with server.client() as client:
        job = client.job(job_id)
        assert (job.status, job.attempt) == ("succeeded", 1), job.error
        assert [row["epoch"] for row in client.metrics(job.id)] == [0, 1, 2]
        server.jobs["first"] = job
        assert_delivered(client, job, stack.folder / "results")
    images = run("docker", "images", "--format", "{{.Repository}}:{{.Tag}} {{.Size}}")
    say("images: " + ", ".join(line for line in images.splitlines() if line.startswith("trainshed-")))


def assert_delivered(client: Client, job: Job, folder: Path) -> None:
    """See that every artifact lies in a folder, whole."""
    found = {artifact.name: artifact for artifact in client.artifacts(job.id)}
    assert {"best.pt", "last.pt", "results.csv"} <= set(found)
    for name, artifact in found.items():
        content = (folder / Path(name).name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == artifact.sha256, name


def test_a_second_worker_takes_part(server: Server) -> None:
    server.stack.shell("token", "command", "scale")
    with server.client() as client:
        until(lambda: len(well(client)) == 2, "two workers that are well")
    until(lambda: server.stack.states("worker") == ["healthy"] * 2, "two healthy workers")


def well(client: Client) -> list[str]:
    """Return the train workers that can take a job and have been seen lately; none while the API is away."""
    try:
        found = client.workers()
    except ClientError:
        return []
    lately = time.time() - SEEN_S
    return [
        one.id
        for one in found
        if one.queue == "train.cpu" and one.state in ("idle", "busy") and (one.seen_at or 0) > lately
    ]


def test_every_service_is_well(server: Server) -> None:
    for service in SERVICES:
        until(
            lambda service=service: set(server.stack.states(service)) == {"healthy"}, f"{service} is healthy"
        )
    (migrate,) = server.stack.inspect("migrate")
    assert (migrate["State"]["Status"], migrate["State"]["ExitCode"]) == ("exited", 0)
    assert server.stack.shell("token", "watch").count("healthy") >= len(SERVICES)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_no_rights(server: Server, service: str) -> None:
    stack = server.stack
    inside = f"exec -T {service} "
    assert stack.compose(inside + "id -u").strip() not in ("", "0")
    status = dict(
        line.split(":\t", 1)
        for line in stack.compose(inside + "cat /proc/self/status").splitlines()
        if ":\t" in line
    )
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    told = stack.compose(inside + "sh -c 'for d in / /etc /opt /usr/bin; do touch $d/x; done; true' 2>&1")
    assert told.count("Read-only file system") == 4, told
    for container in stack.inspect(service):
        assert container["HostConfig"]["Privileged"] is False
        assert bool(container["HostConfig"]["PortBindings"]) == (service == "api")
    if service in OWN:
        assert "No module named pip" in stack.compose(inside + "python -m pip --version 2>&1", check=False)
        assert stack.compose(inside + "sh -c 'ls /data/secrets/token 2>/dev/null || true'").strip() == (
            "/data/secrets/token" if service == "api" else ""
        )


def test_workers_reach_nothing_outside(server: Server) -> None:
    for service in ("postgres", "redis", "ingest", "worker"):
        for container in server.stack.inspect(service):
            (network,) = container["NetworkSettings"]["Networks"]
            assert run("docker", "network", "inspect", "--format", "{{.Internal}}", network) == "true"


def test_a_session_behind_tls_is_for_tls_only(server: Server) -> None:
    body = {"token": server.stack.environment["TRAINSHED_TOKEN"]}
    address = f"{server.stack.url}/v1/session"
    for scheme in ("http", "https"):
        answer = httpx.post(address, json=body, headers={"X-Forwarded-Proto": scheme})
        assert answer.status_code == 201, answer.text
        assert ("Secure" in answer.headers["set-cookie"]) == (scheme == "https")
    assert httpx.get(server.stack.url, headers={"Host": "other.example"}).status_code == 400


def test_a_service_that_crashes_is_started_again(server: Server) -> None:
    (before,) = server.stack.inspect("api")
    # The init process is number 1; what it started is the API.
    crash = "import os, signal; [os.kill(int(p), signal.SIGKILL) for p in os.listdir('/proc') if p.isdigit()"
    crash += (
        " and int(p) not in (1, os.getpid()) and b'api.server' in open(f'/proc/{p}/cmdline', 'rb').read()]"
    )
    server.stack.compose(f'exec -T api python -c "{crash}"', check=False)
    until(
        lambda: server.stack.inspect("api")[0]["RestartCount"] > before["RestartCount"],
        "a restart of the API",
    )
    until(lambda: server.stack.states("api") == ["healthy"], "a healthy API")


def submit_long(server: Server, client: Client) -> tuple[Job, int]:
    """Submit a job of about `RUN_S` seconds, judged by the first one; return it and its epochs."""
    first = server.jobs["first"]
    rows = client.metrics(first.id)
    seconds = max(0.2, min(float(row["seconds"]) for row in rows))
    epochs = max(20, min(600, int(RUN_S / seconds)))
    config: dict[str, Any] = {**first.config, "epochs": epochs, "patience": 0}
    job = client.submit({"dataset": first.dataset, "architecture": first.architecture, "config": config})
    say(f"a job of {epochs} epochs, {seconds:.1f} s each")
    return job, epochs


def trained(client: Client, job: Job) -> int:
    """Return the number of epochs in the book."""
    try:
        return len(client.metrics(job.id))
    except ClientError:
        return 0


def host_of(client: Client, job: Job) -> str:
    """Return the host name, which is the short id of the container, of the worker that has a job."""
    worker = client.attempts(job.id)[-1].worker
    assert worker is not None
    return worker.split("/")[0]


def test_a_job_outlives_its_worker_its_redis_and_the_whole_stack(server: Server) -> None:
    stack = server.stack
    with server.client() as client:
        job, epochs = submit_long(server, client)
        watcher = Watcher(stack, job.id, give_up_s=900)
        until(lambda: trained(client, job) >= 3, "three epochs")

        host = host_of(client, job)
        assert any(one.startswith(host) for one in stack.ids("worker"))
        run("docker", "kill", host)
        say(f"killed the worker {host}")
        until(lambda: client.job(job.id).attempt == 2, "another attempt")
        at = trained(client, job)
        until(lambda: trained(client, job) >= at + 3, "three more epochs of the second worker")
        assert host_of(client, job) != host

        (redis,) = stack.ids("redis")
        run("docker", "kill", redis)
        say("killed Redis")
        at = trained(client, job)
        until(lambda: trained(client, job) >= at + 3, "three more epochs without Redis")
        assert httpx.get(f"{stack.url}/readyz").json()["status"] == "degraded"
        run("docker", "start", redis)
        until(lambda: httpx.get(f"{stack.url}/readyz").json()["status"] != "degraded", "Redis is back")
        assert client.job(job.id).attempt == 2

        assert client.job(job.id).status == "running", "the job was too short for all its faults"
        at = trained(client, job)
        stack.shell("update", timeout_s=1800)
        until(lambda: trained(client, job) > at, "an epoch after the update")
        ended = client.wait_for_job(job.id, timeout_s=PATIENCE_S)
        assert (ended.status, ended.attempt) == ("succeeded", 3), ended.error
        assert_nothing_lost(client, ended, watcher, epochs)
        server.jobs["long"] = ended


def assert_nothing_lost(client: Client, job: Job, watcher: Watcher, epochs: int) -> None:
    """See that a watcher and the archive tell the same, without a gap, and each epoch once."""
    assert [row["epoch"] for row in client.metrics(job.id)] == list(range(epochs))
    told = watcher.join(120)
    archived = [event for event in follow(client, job.id) if event.id is not None and event.type != "end"]
    assert [event.id for event in told] == [event.id for event in archived]
    for attempt in range(1, job.attempt + 1):
        numbers = [position(event)[1] for event in told if position(event)[0] == attempt]
        assert numbers == list(range(1, len(numbers) + 1)), in_short(told)[-2000:]
    counted = [event.data["epoch"] for event in that_count(told) if event.type == "epoch"]
    assert counted == list(range(epochs))
    resumed = [event.data for event in told if event.type == "resume"]
    assert [one["attempt"] for one in resumed] == list(range(2, job.attempt + 1))
    assert all(one["epoch"] > 0 for one in resumed), resumed
    say(f"resumed at epochs {[one['epoch'] for one in resumed]} of {epochs}, {len(told)} events")
    outcomes = [one.outcome for one in client.attempts(job.id)]
    say(f"outcomes of the attempts: {outcomes}")


def test_no_secret_is_in_a_log_or_an_image(server: Server) -> None:
    secrets = server.stack.secrets()
    assert len(secrets) == 3 and all(len(value) > 20 for value in secrets.values())
    logs = server.stack.compose("logs --no-color 2>&1")
    assert len(logs) > 1000
    for image in ("trainshed-api:0.1.0", "trainshed-worker:0.1.0"):
        logs += run("docker", "history", "--no-trunc", image) + run("docker", "inspect", image)
    assert [name for name, value in secrets.items() if value in logs] == []


def test_a_backup_comes_back_in_another_project(server: Server) -> None:
    stack, other = server.stack, server.other
    with server.client() as client:
        before = {name: kept(client, job) for name, job in server.jobs.items()}
        stack.shell("backup")
        until(lambda: len(well(client)) == 2, "the workers are back after the backup", 120)
    sizes = {path.name: path.stat().st_size for path in (stack.folder / "backup").iterdir()}
    say(f"backup: {sizes} bytes")
    began = time.monotonic()
    stack.compose("stop")
    say(f"all of it stopped: after {time.monotonic() - began:.0f} s")
    codes = {service: [one["State"]["ExitCode"] for one in stack.inspect(service)] for service in OWN}
    assert all(code in (0, TERMINATED) for found in codes.values() for code in found), codes
    shutil.copytree(stack.folder / "backup", other.folder / "backup")
    other.shell("settings", "restore")
    # Tokens in use stay valid; the new first token is another one.
    other.environment["TRAINSHED_TOKEN"] = stack.environment["TRAINSHED_TOKEN"]
    until(lambda: other.states("api") == ["healthy"], "a healthy API of the restored service")
    assert other.secrets()["token"] != stack.environment["TRAINSHED_TOKEN"]
    with other.client() as client:
        assert {name: kept(client, job) for name, job in server.jobs.items()} == before
        folder = other.folder / "results"
        folder.mkdir()
        for artifact in client.artifacts(server.jobs["long"].id):
            client.download(server.jobs["long"].id, artifact, folder / Path(artifact.name).name)
        assert_delivered(client, server.jobs["long"], folder)
        until(lambda: well(client), "a worker of the restored service")
        again = client.rerun(server.jobs["first"].id)
        assert client.wait_for_job(again.id, timeout_s=600).status == "succeeded"


def kept(client: Client, job: Job) -> dict[str, Any]:
    """Return what the service tells of a job that ended."""
    artifacts = {artifact.name: artifact.sha256 for artifact in client.artifacts(job.id)}
    events = [event.id for event in follow(client, job.id) if event.id is not None]
    told = client.job(job.id).as_json()
    return {"job": told, "rows": client.metrics(job.id), "artifacts": artifacts, "events": events}


def test_nothing_is_left_when_all_is_taken_down(server: Server) -> None:
    for project in (server.stack, server.other):
        project.close()
        mine = f"label=com.docker.compose.project={project.project}"
        for kind, listing in (("container", "-aq"), ("volume", "-q"), ("network", "-q")):
            assert run("docker", kind, "ls", listing, "--filter", mine) == ""
