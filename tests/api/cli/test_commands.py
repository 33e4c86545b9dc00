"""Commands to jobs and the sight of the fleet, as a person types and reads them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from api.cli import fleet
from api.cli.jobtext import attempt_line, duration, waiting_line, wish_line
from api.cli.main import options
from api.client import Attempt, Job, Queue, Worker
from tests.api.cli.conftest import Run
from tests.api.client.fake_service import QUEUE, TOKEN, WORKER, FakeService, running


@pytest.mark.parametrize(
    ("verb", "words"),
    [("cancel", "to drop it"), ("stop", "delivers the best so far"), ("pause", "write a checkpoint")],
)
def test_a_wish_is_sent_and_what_follows_is_told(
    verb: str, words: str, service: FakeService, run: Run
) -> None:
    result = run("jobs", verb, "job_1")
    assert result.exit_code == 0 and result.stdout.startswith("job_1  queued") and words in result.stdout
    assert len(service.asked("POST", f"/v1/jobs/job_1/{verb}")) == 1
    assert json.loads(run("jobs", verb, "job_1", "--json").stdout)["wish"] == verb


def test_what_is_to_be_done_with_a_job() -> None:
    def line(status: str, wish: str | None) -> str | None:
        return wish_line(Job.model_validate({"id": "job_1", "status": status, "wish": wish}))

    assert line("queued", None) is None
    assert "its worker is told to end it" in (line("running", "stop") or "")
    assert "the next worker" in (line("queued", "stop") or "")
    assert line("running", "new") == "new"


def test_activate(service: FakeService, run: Run) -> None:
    assert run("jobs", "activate", "job_1").stdout == "job_1  queued  first\n"


@pytest.mark.parametrize("verb", ["cancel", "stop", "pause", "activate", "rerun", "delete"])
def test_a_refusal_is_2_and_tells_the_state(verb: str, service: FakeService, run: Run) -> None:
    service.refuse = (409, {"title": "c", "code": "JOB_FINAL", "detail": "the job has already failed"})
    result = run("jobs", verb, "job_1")
    assert result.exit_code == 2 and "already failed" in result.stderr


@pytest.mark.parametrize("priority", ["5", "-5"])
def test_priority(priority: str, service: FakeService, run: Run) -> None:
    result = run("jobs", "priority", "job_1", priority)
    assert result.exit_code == 0 and "priority 5" in result.stdout
    ((headers, body),) = service.asked("PATCH", "/v1/jobs/job_1")
    assert (headers["if-match"], json.loads(body)) == ("*", {"priority": int(priority)})


@pytest.mark.parametrize("arguments", [(), ("x",), ("1.5",), ("1", "--nonsense")])
def test_a_priority_is_a_number(arguments: tuple[str, ...], service: FakeService, run: Run) -> None:
    assert run("jobs", "priority", "job_1", *arguments).exit_code == 2
    assert service.requests == []


def test_delete(service: FakeService, run: Run) -> None:
    assert run("jobs", "delete", "job_1").stdout == "job_1  deleted\n"
    assert len(service.asked("DELETE", "/v1/jobs/job_1")) == 1


def test_rerun_sends_what_is_to_be_different(service: FakeService, run: Run) -> None:
    assert run("jobs", "rerun", "job_1").stdout == "job_1\n"
    result = run(
        *("jobs", "rerun", "job_1", "-d", "cells", "-m", "yolov5n", "--set", "epochs=9", "--name", "n"),
        *("--tag", "a", "--priority", "0", "--max-runtime", "60", "--idempotency-key", "k"),
    )
    assert result.exit_code == 0, result.output
    (_, nothing), (headers, body) = service.asked("POST", "/v1/jobs/job_1/rerun")
    assert json.loads(nothing) == {} and headers["idempotency-key"] == "k"
    expected: dict[str, Any] = {"dataset": "ds_1", "architecture": "arch_1", "config": {"epochs": 9}}
    assert json.loads(body) == expected | {"name": "n", "tags": ["a"], "priority": 0, "max_runtime_s": 60}


def test_rerun_and_wait_exits_as_the_new_job_ends(service: FakeService, run: Run) -> None:
    service.final = service.job | {"status": "failed"}
    result = run("jobs", "rerun", "job_1", "--wait", "--json")
    assert result.exit_code == 1 and json.loads(result.stdout)["status"] == "failed"


def test_submit_with_priority_and_longest_time(service: FakeService, run: Run) -> None:
    result = run("jobs", "submit", "-d", "ds_1", "-m", "arch_1", "--priority", "-2", "--max-runtime", "60")
    assert result.exit_code == 0, result.output
    sent = json.loads(service.asked("POST", "/v1/jobs")[0][1])
    assert (sent["priority"], sent["max_runtime_s"]) == (-2, 60)


def test_show_tells_why_a_job_waits_and_what_was_tried(service: FakeService, run: Run) -> None:
    soon = {"queue_position": 3, "estimated_start_at": time.time() + 330, "queue": "train.g1"}
    facts = {"priority": 4, "parent": "job_0", "simulated": True, "waiting_reason": "waiting_for_worker"}
    service.final = service.job | soon | facts
    shown = run("jobs", "show", "job_1").stdout.splitlines()
    assert shown[0] == "job_1  queued  first  SIMULATED"
    assert shown[1].startswith(
        "  it waits for a worker that has time; number 3 of train.g1; may start in about 5"
    )
    assert shown[2] == "  priority 4, rerun of job_0"
    assert shown[3] == "  attempt 1  failed  3 min 20 s  on h/train.cpu/0  CRASHED  exit 1"
    assert len(shown) == 4
    told = json.loads(run("jobs", "show", "job_1", "--json").stdout)
    assert (told["attempts"][0]["code"], told["parent"]) == ("CRASHED", "job_0")


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        ({}, None),
        (
            {"waiting_reason": "owner_limit"},
            "as many jobs of its owner run as may; it waits until one has ended",
        ),
        (
            {"waiting_reason": "new", "queue_position": 1, "estimated_start_at": 99.0},
            "new; number 1 of its queue; may start any moment",
        ),
        ({"waiting_reason": "new", "estimated_start_at": 3820.0}, "new; may start in about 1 h 02 min"),
    ],
)
def test_the_line_of_a_waiting_job(facts: dict[str, Any], line: str | None) -> None:
    assert waiting_line(Job.model_validate({"id": "j", "status": "queued"} | facts), 100.0) == line


def test_the_line_of_a_running_attempt() -> None:
    attempt = Attempt(attempt=2, worker="w", started_at=10.0)
    assert attempt_line(attempt, 22.0) == "attempt 2  running  12 s  on w"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (3599.6, "1 h 00 min"), (90_000, "25 h 00 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.fixture
def run_fleet(service: FakeService) -> Iterator[Run]:
    app = typer.Typer()
    app.callback()(options)
    app.command("fleet")(fleet.fleet_command)
    with running(service) as url:
        environment = {"TRAINSHED_URL": url, "TRAINSHED_TOKEN": TOKEN}
        yield lambda *arguments: CliRunner().invoke(app, ["fleet", *arguments], env=environment)


def test_the_fleet_is_shown(service: FakeService, run_fleet: Run) -> None:
    service.workers[0] |= {"seen_at": time.time() - 5, "current_id": "job_1", "state": "busy"}
    shown = run_fleet().stdout.splitlines()
    assert shown[0] == ("queue train.g1  2 queued  1 running  1 workers (0 idle)  a job took 3 min 20 s")
    assert shown[1].startswith("worker h/train.g1/0  train.g1  busy  job_1  seen ")
    told = json.loads(run_fleet("--json").stdout)
    assert (told["queues"][0]["queued"], told["workers"][0]["state"]) == (2, "busy")
    service.workers, service.queues = [], []
    assert run_fleet().stdout == "no worker has announced itself\n"


def test_a_worker_is_cleared(service: FakeService, run_fleet: Run) -> None:
    assert run_fleet("--clear", "h/train.g1/0").exit_code == 0
    assert run_fleet("--clear", "h/train.g1/1").exit_code == 2
    assert len(service.asked("POST", "/v1/workers/h/train.g1/0/clear")) == 1


def test_what_needs_a_person_is_red() -> None:
    ill = Worker.model_validate(WORKER | {"state": "unhealthy", "reason": "memory of the GPU is not freed"})
    line = fleet.worker_line(ill, 1003.0)
    expected = "worker h/train.g1/0  train.g1  unhealthy  seen 3 s ago  memory of the GPU is not freed"
    assert (line.plain, line.style) == (expected, "red")
    assert fleet.worker_line(Worker.model_validate(WORKER), 1003.0).style == ""
    assert fleet.queue_line(Queue.model_validate(QUEUE | {"workers": 0})).style == "red"
    assert fleet.queue_line(Queue.model_validate(QUEUE)).style == ""
