"""The command line as a pipeline uses it: exit codes, JSON on standard output, messages on standard error."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from api.cli.config import read_config
from api.cli.datasets import as_archive
from api.cli.main import app
from api.cli.session import Options, connection_file, describe_problem, find_target
from tests.api.cli.conftest import Run
from tests.api.client.fake_service import WEIGHTS, FakeService, event_text
from tests.support.shared import ROOT

EPOCH: dict[str, Any] = {"epoch": 0, "epochs": 2, "train": {"box": 0.1, "obj": 0.2, "cls": 0.3}, "val": None}
EPOCH |= {"precision": 0.5, "recall": 0.4, "map50": 0.45, "map50_95": 0.2, "seconds": 1.5, "best": True}


def _streams(status: str) -> list[list[bytes | float]]:
    return [
        [
            event_text("job", {"id": "job_1", "status": "running"}),
            event_text("batch", {"epoch": 0, "batch": 0, "batches": 4, "loss": {"box": 0.1}}, "1-1"),
            event_text("epoch", EPOCH, "1-2"),
            event_text("job", {"id": "job_1", "status": status}),
            event_text("end", {}),
        ]
    ]


@pytest.mark.parametrize(("status", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 4)])
def test_submit_and_wait_exits_as_the_job_ends(
    status: str, code: int, service: FakeService, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "tiny.yaml").write_text("nc: 2\n")
    (tmp_path / "cells.zip").write_bytes(b"PK")
    service.final = service.job | {"status": status, "best": {"map50": 0.5}}
    service.final["error"] = {"code": "X", "message": "why", "hint": "do"} if status == "failed" else None
    service.streams = _streams(status)
    files = ("-d", str(tmp_path / "cells.zip"), "-m", str(tmp_path / "tiny.yaml"))
    result = run("jobs", "submit", *files, "--set", "epochs=2", "--set", "hyp.lr0=0.005", "--wait")
    assert result.exit_code == code, result.output
    assert result.stdout.splitlines()[0] == "job_1"
    assert "mAP50 0.450" in result.stderr and "batch 1/4" not in result.stderr
    sent = json.loads(service.asked("POST", "/v1/jobs")[0][1])
    expected = {"epochs": 2, "hyp": {"lr0": 0.005}}
    assert sent.pop("on_duplicate") == "refuse"
    assert sent == {"dataset": "ds_1", "architecture": "arch_1", "config": expected}


def test_an_identical_run_is_refused_unless_something_else_is_said(service: FakeService, run: Run) -> None:
    submit = ("jobs", "submit", "-d", "ds_1", "-m", "arch_1")
    for options in (
        ("--reuse",),
        ("--force",),
        ("--idempotency-key", "k"),
        ("--idempotency-key", "k", "--reuse"),
    ):
        assert run(*submit, *options).exit_code == 0
    sent = [json.loads(body).get("on_duplicate") for _, body in service.asked("POST", "/v1/jobs")]
    assert sent == ["reuse", None, None, "reuse"]
    service.headers = {"Run-Reused": "true"}
    assert "job_1 exists already (queued): no new run" in run(*submit, "--reuse").stderr
    both = run(*submit, "--reuse", "--force")
    assert both.exit_code == 2 and "contradict" in both.stderr
    service.job_refusal = {
        "title": "conflict",
        "code": "RUN_EXISTS",
        "detail": "an identical run exists: job_9",
    }
    refused = run(*submit)
    assert refused.exit_code == 2 and "job_9; --reuse takes it, --force trains again" in refused.stderr


def test_submit_by_name_prints_json(run: Run) -> None:
    result = run("jobs", "submit", "-d", "cells", "-m", "arch_1", "--json", "--wait")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["status"] == "succeeded"


@pytest.mark.parametrize(
    ("name", "text"),
    [("yolov5n", b"nc: 80\n"), ("yolov5-p2", b"nc: 81\n"), ("hub/yolov5-p2", b"nc: 81\n")],
)
def test_a_public_model_is_submitted_by_name(name: str, text: bytes, service: FakeService, run: Run) -> None:
    result = run("jobs", "submit", "-d", "ds_1", "-m", name)
    assert result.exit_code == 0, result.output
    assert service.asked("POST", "/v1/architectures")[0][1] == text
    # The service takes no folders in names.
    assert service.requests[-2][1] == f"/v1/architectures?name={name.removeprefix('hub/')}"


def test_an_unknown_model_is_a_usage_error_that_lists_the_public_ones(run: Run) -> None:
    result = run("jobs", "submit", "-d", "ds_1", "-m", "yolov9")
    assert result.exit_code == 2 and "'yolov9'" in result.stderr and "hub/yolov5-p2" in result.stderr


def test_an_edited_model_file_is_kept_beside_the_earlier_one(
    service: FakeService, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "tiny.yaml").write_text("nc: 2\n")
    service.taken_names = {"tiny"}
    result = run("jobs", "submit", "-d", "ds_1", "-m", str(tmp_path / "tiny.yaml"))
    assert result.exit_code == 0, result.output
    paths = [path for method, path, _, _ in service.requests if "architectures" in path]
    assert len(paths) == 2 and paths[1].startswith("/v1/architectures?name=tiny-")


def test_timeout_is_5(service: FakeService, run: Run) -> None:
    service.streams = [[event_text("job", {"status": "running"}), b"hang"]]
    result = run("jobs", "submit", "-d", "ds_1", "-m", "arch_1", "--wait", "--timeout", "0.4")
    assert result.exit_code == 5


@pytest.mark.parametrize(
    "command", [("submit", "-d", "ds_1", "-m", "arch_1", "--wait"), ("watch", "job_1")], ids=lambda c: c[0]
)
def test_a_silent_job_times_out_in_time(command: tuple[str, ...], service: FakeService, run: Run) -> None:
    pings: list[bytes | float] = [b": ping\n\n", 0.05]
    service.streams = [[event_text("job", {"status": "running"}), *pings * 40, b"hang"]]
    began = time.monotonic()
    result = run("jobs", *command, "--timeout", "0.5")
    assert result.exit_code == 5 and "job_1" in result.stderr
    assert time.monotonic() - began < 1.5


def test_a_wait_for_json_outlasts_a_restart_of_the_service(service: FakeService, run: Run) -> None:
    service.failing = {"/v1/jobs/job_1": [503, 502]}
    result = run("jobs", "submit", "-d", "ds_1", "-m", "arch_1", "--json", "--wait")
    assert result.exit_code == 0 and json.loads(result.stdout)["status"] == "succeeded"


def test_json_tells_the_job_although_the_wait_is_over(service: FakeService, run: Run) -> None:
    service.final = service.job | {"status": "running"}
    result = run("jobs", "submit", "-d", "ds_1", "-m", "arch_1", "--json", "--wait", "--timeout", "0.3")
    told = json.loads(result.stdout)
    assert result.exit_code == 5 and (told["id"], told["status"]) == ("job_1", "running")
    service.failing = {"/v1/jobs/job_1": [404]}
    result = run("jobs", "submit", "-d", "ds_1", "-m", "arch_1", "--json", "--wait")
    assert result.exit_code == 2 and json.loads(result.stdout)["id"] == "job_1"


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_service_out_of_order_is_6(status: int, service: FakeService, run: Run) -> None:
    service.refuse = (status, {"title": "away", "code": "AWAY"})
    assert run("jobs", "show", "job_1").exit_code == 6


def test_an_invalid_dataset_fails_before_any_job(service: FakeService, run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.zip").write_bytes(b"PK")
    service.dataset |= {"status": "invalid"}
    for wanted in (str(tmp_path / "bad.zip"), "cells", "ds_1"):
        result = run("jobs", "submit", "-d", wanted, "-m", "arch_1", "--wait")
        assert result.exit_code == 1 and "labels/a.txt:3: above 1 [1.02] (and 1 more)" in result.stderr
    assert service.asked("POST", "/v1/jobs") == []


def test_a_dataset_found_invalid_on_submission_is_1(service: FakeService, run: Run) -> None:
    service.failing = {"/v1/jobs": [409]}
    service.failure_code = "DATASET_INVALID"
    assert run("jobs", "submit", "-d", "ds_1", "-m", "arch_1").exit_code == 1


def test_unreachable_is_6() -> None:
    result = CliRunner().invoke(app, ["--url", "http://127.0.0.1:9", "--token", "x", "jobs", "list"])
    assert result.exit_code == 6 and "does not answer" in result.stderr


def test_not_allowed_is_7(run: Run) -> None:
    result = run("--token", "ts_wrong", "jobs", "list")
    assert result.exit_code == 7 and "not allowed" in result.stderr


def test_refused_input_is_2_with_line_and_column(service: FakeService, run: Run, tmp_path: Path) -> None:
    model = tmp_path / "m.yaml"
    model.write_text("nc: [")
    problem = {"line": 7, "column": 3, "message": "unknown module", "value": "Conf"}
    service.refuse = (422, {"title": "bad", "code": "ARCHITECTURE_INVALID", "errors": [problem]})
    result = run("models", "check", str(model))
    assert result.exit_code == 2 and "line 7:3: unknown module [Conf]" in result.stderr


@pytest.mark.parametrize(
    "arguments", [("jobs",), ("jobs", "submit"), ("jobs", "nonsense"), ("datasets", "push")]
)
def test_usage_is_2(arguments: tuple[str, ...], run: Run) -> None:
    assert run(*arguments).exit_code == 2


def test_datasets_push_packs_a_folder(service: FakeService, run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "cells"
    (folder / "images").mkdir(parents=True)
    (folder / "data.yaml").write_text("names: [a]\n")
    (folder / "images" / "a.jpg").write_bytes(b"jpg")
    (folder / "train.cache").write_bytes(b"pickle")
    result = run("datasets", "push", str(folder))
    assert result.exit_code == 0 and "ready: 3 train, 1 val; 12 boxes, 2 classes" in result.stdout
    body = service.asked("PUT", "/v1/datasets")[0][1]
    assert b"images/a.jpg" in body and b"train.cache" not in body


def _checkout(folder: Path, *, newest_first: bool, time_s: int, mode: int) -> Path:
    texts = {"data.yaml": "names: [a]\n", "images/b.jpg": "b", "images-2/a.jpg": "a", "labels/b.txt": "0"}
    for name in sorted(texts, reverse=newest_first):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(texts[name])
        path.chmod(mode)
        os.utime(path, (time_s, time_s))
    return folder


def test_the_same_files_are_the_same_archive(tmp_path: Path) -> None:
    # Time 0 is before the first a zip can tell.
    first = _checkout(tmp_path / "a" / "cells", newest_first=True, time_s=0, mode=0o600)
    second = _checkout(tmp_path / "b" / "cells", newest_first=False, time_s=1_700_000_000, mode=0o755)
    with as_archive(first) as one, as_archive(second) as other:
        assert one.read_bytes() == other.read_bytes()
        with zipfile.ZipFile(one) as archive:
            assert archive.namelist() == ["data.yaml", "images-2/a.jpg", "images/b.jpg", "labels/b.txt"]
            assert archive.testzip() is None and archive.read("images/b.jpg") == b"b"


@pytest.mark.parametrize(
    "command", [("datasets", "push"), ("jobs", "submit", "-m", "arch_1", "-d")], ids=lambda c: c[0]
)
def test_other_bytes_of_a_taken_name_are_kept_beside_them(
    command: tuple[str, ...], service: FakeService, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "cells.zip").write_bytes(b"PK")
    service.taken_names = {"cells"}
    result = run(*command, str(tmp_path / "cells.zip"))
    kept = f"cells-{hashlib.sha256(b'PK').hexdigest()[:8]}"
    assert result.exit_code == 0 and kept in result.stderr, result.output
    puts = [path for method, path, _, _ in service.requests if method == "PUT"]
    assert puts == ["/v1/datasets?name=cells", f"/v1/datasets?name={kept}"]


@pytest.mark.parametrize("wanted", ["ds_1", "cells"])
def test_a_dataset_is_shown_with_its_report_and_deleted(wanted: str, service: FakeService, run: Run) -> None:
    shown = run("datasets", "show", wanted)
    assert shown.exit_code == 0 and shown.stdout.startswith("ds_1  cells  ready")
    assert "warning: labels/a.txt:3: above 1 [1.02] (and 1 more)" in shown.stderr
    assert json.loads(run("datasets", "show", wanted, "--json").stdout)["report"] == service.problems
    assert run("datasets", "delete", wanted).exit_code == 0
    assert len(service.asked("DELETE", "/v1/datasets/ds_1")) == 1


def test_a_dataset_that_was_looked_at_is_confirmed(service: FakeService, run: Run) -> None:
    confirmed = run("datasets", "confirm", "cells")
    assert confirmed.exit_code == 0 and confirmed.stdout.startswith("ds_1  cells  ready"), confirmed.output
    assert json.loads(service.asked("POST", "/v1/datasets/ds_1/confirm")[0][1]) == {}


def test_a_dataset_the_service_failed_at_is_retried(service: FakeService, run: Run) -> None:
    again = run("datasets", "retry", "cells")
    assert again.exit_code == 0 and again.stdout.startswith("ds_1  cells  ready"), again.output
    assert len(service.asked("POST", "/v1/datasets/ds_1/retry")) == 1


def test_models_check_prints_the_size(run: Run, tmp_path: Path) -> None:
    model = tmp_path / "m.yaml"
    model.write_text("nc: 10\n")
    result = run("models", "check", str(model), "--classes", "10")
    assert (
        result.exit_code == 0 and "1,234 parameters; 0.50 GFLOPs; strides 8, 16; 10 classes" in result.stdout
    )


def test_list_show_cancel(run: Run) -> None:
    assert run("jobs", "list", "--limit", "1").stdout.split()[:2] == ["job_0", "queued"]
    assert "succeeded" in run("jobs", "show", "job_1").stdout
    assert run("jobs", "cancel", "job_1").exit_code == 0


def test_a_list_tells_that_there_is_more(run: Run) -> None:
    cut = run("jobs", "list", "--limit", "1")
    assert len(cut.stdout.splitlines()) == 1 and "more than 1" in cut.stderr
    for whole in (run("jobs", "list", "--all"), run("jobs", "list", "--limit", "2"), run("jobs", "list")):
        assert len(whole.stdout.splitlines()) == 2 and whole.stderr == ""
    assert len(json.loads(run("jobs", "list", "--limit", "1", "--json").stdout)) == 1


@pytest.mark.parametrize(
    ("reason", "words"), [("no_worker", "no worker for its queue"), ("something_new", "something_new")]
)
def test_show_says_what_a_job_waits_for(reason: str, words: str, service: FakeService, run: Run) -> None:
    service.final = service.job | {"waiting_reason": reason}
    assert words in run("jobs", "show", "job_1").stdout


def test_watch_as_json_is_one_event_a_line(service: FakeService, run: Run) -> None:
    service.streams = _streams("succeeded")
    result = run("jobs", "watch", "job_1", "--json")
    types = [json.loads(line)["type"] for line in result.stdout.splitlines()]
    assert result.exit_code == 0 and types == ["job", "batch", "epoch", "job", "end"]


def test_what_a_job_waits_for_is_told_when_it_changes(service: FakeService, run: Run) -> None:
    waiting = [
        {"id": "job_1", "status": "queued", "waiting_reason": why} for why in ("no_worker", "no_worker")
    ]
    waiting.append(waiting[0] | {"waiting_reason": "waiting_for_worker"})
    service.streams = [[*(event_text("job", job) for job in waiting), *_streams("succeeded")[0]]]
    told = [line for line in run("jobs", "watch", "job_1").stderr.splitlines() if "queued" in line]
    assert told == ["job job_1: queued (no_worker)", "job job_1: queued (waiting_for_worker)"]


def test_artifacts_get(run: Run, tmp_path: Path) -> None:
    result = run("artifacts", "get", "job_1", "best.pt", "-o", str(tmp_path))
    assert result.exit_code == 0 and (tmp_path / "best.pt").read_bytes() == WEIGHTS
    assert run("artifacts", "get", "job_1", "nothing", "-o", str(tmp_path)).exit_code == 2


def test_address_and_token_come_from_the_data_folder(tmp_path: Path) -> None:
    path = connection_file(tmp_path)
    path.parent.mkdir()
    path.write_text(json.dumps({"url": "http://127.0.0.1:81", "token": "ts_local"}))
    local = find_target(Options(None, None, tmp_path))
    assert (local.url, local.token) == ("http://127.0.0.1:81", "ts_local")
    # The token must not be sent to another address than it was found with.
    other = find_target(Options("http://elsewhere", None, tmp_path))
    assert (other.url, other.token) == ("http://elsewhere", None)


def test_config_files_and_settings(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("epochs: 3\nhyp: {lr0: 0.1}\n")
    values = read_config(path, ["epochs=5", "hyp.cls=2.0", "optimizer=SGD", "val.batch=null"])
    assert values == {
        "epochs": 5,
        "hyp": {"lr0": 0.1, "cls": 2.0},
        "optimizer": "SGD",
        "val": {"batch": None},
    }


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        ({"pointer": "/epochs", "message": "too small", "value": "0"}, "/epochs: too small [0]"),
        ({"file": "a.txt", "line": 2, "message": "bad"}, "a.txt:2: bad"),
        ({"message": "bad"}, "bad"),
    ],
)
def test_problems_in_one_line(problem: dict[str, Any], text: str) -> None:
    assert describe_problem(problem) == text


def test_the_command_line_loads_nothing_of_the_service() -> None:
    code = (
        "import sys; import api.cli.main; names = 'torch cv2 sqlalchemy celery redis fastapi api.domain';"
        "print([name for name in names.split() if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
