"""The training program as the supervisor runs it: journal, result file, exit codes, signals, lifeline."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.runs import SETTINGS, weights_hash
from tests.support.shapes import NAMES, TINY_MODEL, write_shapes
from tests.support.shared import weights_dir
from worker.lifeline import STANDBY, order_line
from worker.tools import import_weights
from worker.trainer import Attempt, SignalControl
from yolocore.data.files import scan_yolo_folder
from yolocore.errors import (
    ArchitectureError,
    ConfigError,
    CoreError,
    DatasetError,
    DiskFullError,
    NonFiniteError,
    OutOfMemoryError,
)
from yolocore.spec.dataset import Manifest, ManifestImage
from yolocore.spec.events import decode_line
from yolocore.spec.zoo import zoo_text

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A manifest and its content-addressed images, as intake publishes them."""
    root = tmp_path_factory.mktemp("blobs")
    _, splits, _ = scan_yolo_folder(write_shapes(tmp_path_factory.mktemp("shapes")))
    images = []
    for split in ("train", "val"):
        for sample in splits[split]:
            data = sample.path.read_bytes()
            sha256 = hashlib.sha256(data).hexdigest()
            place = root / sha256[:2] / sha256
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(data)
            images.append(
                ManifestImage(
                    split=split,  # type: ignore[arg-type]
                    name=f"images/{split}/{sample.path.name}",
                    sha256=sha256,
                    bytes=len(data),
                    width=sample.width,
                    height=sample.height,
                    rows=[(int(row[0]), *(min(1.0, float(v)) for v in row[1:])) for row in sample.rows],  # type: ignore[misc]
                )
            )
    manifest = root / "manifest.json"
    manifest.write_bytes(Manifest.build(NAMES, images).canonical_json())
    return {"manifest": str(manifest), "images_root": str(root)}


def write_order(folder: Path, dataset: dict[str, str], **changes: Any) -> Path:
    folder.mkdir(parents=True)
    order = {
        "v": 1,
        "job": "job_1",
        "attempt": 1,
        "config": SETTINGS,
        "architecture": {"name": "tiny.yaml", "text": TINY_MODEL},
        "dataset": dataset,
        "weights": None,
        "resume": None,
        "settings": {
            "device": "cpu", "loader_threads": 1, "cache": "ram", "cache_dir": str(folder / "cache"),
            "checkpoint_every_s": 60, "threads": 1,
        },
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps({**order, **changes}))
    return folder


@contextmanager
def started(folder: Path, argument: str | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run the program as a supervisor does: own session, lifeline, log file."""
    with (folder / "train.log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "worker.trainer", argument or str(folder)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    try:
        yield child
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        assert child.stdin is not None
        child.stdin.close()


def finished(folder: Path) -> tuple[int, dict[str, Any]]:
    with started(folder) as child:
        code = child.wait(PATIENCE_S)
    return code, json.loads((folder / "result.json").read_text())


def told(folder: Path) -> list[Any]:
    path = folder / "events.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [decode_line(line) for line in lines if line.endswith(b"\n")]


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def whole(dataset: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an attempt that was left in peace."""
    folder = write_order(tmp_path_factory.mktemp("whole") / "1", dataset)
    assert finished(folder)[0] == 0
    return folder


def test_an_attempt_from_start_to_end(whole: Path) -> None:
    folder, result = whole, json.loads((whole / "result.json").read_text())
    assert (result["outcome"], result["code"]) == ("succeeded", None)
    assert result["best"].keys() == {"epoch", "fitness", "map50", "map50_95"}
    assert result["metrics"]["map50"] == pytest.approx(result["best"]["map50"], abs=0.02)
    lines = told(folder)
    assert [line.seq for line in lines] == list(range(1, len(lines) + 1))
    events = [line.event for line in lines]
    assert [event.type for event in events[:2]] == ["phase", "start"]
    assert events[0].phase == "preparing"
    assert [event.epoch for event in events if event.type == "epoch"] == [0, 1, 2]
    assert all(
        (folder / event.path).is_file() for event in events if event.type in ("artifact", "checkpoint")
    )
    assert "epoch 3/3" in (folder / "train.log").read_text()


def test_one_that_stood_by_ends_with_the_same_weights(
    whole: Path, dataset: dict[str, str], tmp_path: Path
) -> None:
    folder, elsewhere = write_order(tmp_path / "1", dataset), tmp_path / "elsewhere"
    elsewhere.mkdir()
    with started(elsewhere, STANDBY) as child:
        assert child.stdin is not None
        child.stdin.write(order_line(folder, folder / "train.log"))
        child.stdin.flush()
        assert child.wait(PATIENCE_S) == 0
    assert (elsewhere / "train.log").read_text() == ""
    assert "epoch 3/3" in (folder / "train.log").read_text()
    assert weights_hash(folder / "artifacts/best.pt") == weights_hash(whole / "artifacts/best.pt")


def test_pause_checkpoints_and_the_next_attempt_goes_on(dataset: dict[str, str], tmp_path: Path) -> None:
    first = write_order(tmp_path / "1", dataset, config={**SETTINGS, "epochs": 1000})
    with started(first) as child:
        wait_for(lambda: any(line.event.type == "batch" for line in told(first)))
        (first / "stop.json").write_text(json.dumps({"kind": "pause", "deadline": time.time() + 60}))
        child.send_signal(signal.SIGTERM)
        assert child.wait(PATIENCE_S) == 75
    result = json.loads((first / "result.json").read_text())
    assert (result["outcome"], result["kind"]) == ("stopped", "pause")
    pointer = [line.event for line in told(first) if line.event.type == "checkpoint"][-1]

    second = write_order(
        tmp_path / "2",
        dataset,
        attempt=2,
        config={**SETTINGS, "epochs": 1000},
        resume={
            "checkpoint": str(first / pointer.path),
            "epoch": pointer.epoch,
            "batch": pointer.batch,
            "after": "1-9",
        },
    )
    with started(second) as child:
        wait_for(lambda: any(line.event.type == "batch" for line in told(second)))
        (second / "stop.json").write_text(json.dumps({"kind": "cancel"}))
        child.send_signal(signal.SIGTERM)
        assert child.wait(PATIENCE_S) == 75
    events = [line.event for line in told(second)]
    assert [event.type for event in events[:2]] == ["resume", "phase"]
    assert (events[0].epoch, events[0].batch, events[0].after) == (pointer.epoch, pointer.batch, "1-9")
    assert json.loads((second / "result.json").read_text())["kind"] == "cancel"


def test_a_killed_attempt_goes_on_to_the_same_weights(
    whole: Path, dataset: dict[str, str], tmp_path: Path
) -> None:
    often = {"device": "cpu", "loader_threads": 1, "checkpoint_every_s": 1e-3}
    first = write_order(tmp_path / "1", dataset, settings=often)
    with started(first) as child:
        wait_for(lambda: any(line.event.type == "checkpoint" and line.event.epoch for line in told(first)))
        child.kill()
        child.wait(PATIENCE_S)
    pointer = [line.event for line in told(first) if line.event.type == "checkpoint"][-1]
    assert not (first / "result.json").exists()

    resume = {"checkpoint": str(first / pointer.path), "epoch": pointer.epoch, "batch": pointer.batch}
    second = write_order(tmp_path / "2", dataset, attempt=2, resume=resume)
    assert finished(second)[0] == 0
    for name in ("best.pt", "last.pt"):
        assert weights_hash(second / "artifacts" / name) == weights_hash(whole / "artifacts" / name)
    assert (second / "artifacts/results.csv").read_text() == (whole / "artifacts/results.csv").read_text()


def test_a_signal_without_words_drains_even_while_starting(dataset: dict[str, str], tmp_path: Path) -> None:
    folder = write_order(tmp_path / "1", dataset)
    with started(folder) as child:
        wait_for(lambda: bool(told(folder)))
        child.send_signal(signal.SIGTERM)
        assert child.wait(PATIENCE_S) == 75
    assert json.loads((folder / "result.json").read_text())["kind"] == "drain"


def test_the_end_of_the_lifeline_ends_the_group_at_once(dataset: dict[str, str], tmp_path: Path) -> None:
    folder = write_order(tmp_path / "1", dataset, config={**SETTINGS, "epochs": 1000})
    with started(folder) as child:
        wait_for(lambda: bool(told(folder)))
        assert child.stdin is not None
        child.stdin.close()
        began = time.monotonic()
        assert child.wait(PATIENCE_S) == -signal.SIGKILL
        assert time.monotonic() - began < 5
    assert not (folder / "result.json").exists()


@pytest.mark.parametrize(
    ("changes", "exit_code", "code", "place"),
    [
        ({"config": {"epochs": 0}}, 65, "CONFIG_INVALID", "/epochs"),
        ({"surprise": 1}, 65, "CONFIG_INVALID", "config.json"),
        ({"architecture": {"name": "x.yaml", "text": "backbone: []"}}, 65, "ARCHITECTURE_INVALID", None),
    ],
)
def test_a_users_mistake_has_code_and_place(
    dataset: dict[str, str],
    tmp_path: Path,
    changes: dict[str, Any],
    exit_code: int,
    code: str,
    place: str | None,
) -> None:
    folder = write_order(tmp_path / "1", dataset, **changes)
    attempt = Attempt(folder, SignalControl(folder))
    assert attempt.run() == exit_code
    result = json.loads((folder / "result.json").read_text())
    assert (result["outcome"], result["code"]) == ("failed", code)
    assert place is None or result["place"] == place
    assert result["message"] and "Traceback" not in result["message"]


class Broken(Attempt):
    """An attempt whose training raises."""

    error: Exception

    def _train(self, emit: Any) -> tuple[int, dict[str, Any]]:
        raise self.error


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (DatasetError("x"), 65),
        (ConfigError("x"), 65),
        (ArchitectureError("x"), 65),
        (NonFiniteError("x", value="a.jpg"), 65),
        (OutOfMemoryError("x"), 71),
        (DiskFullError("x"), 74),
        (CoreError("x"), 70),
        (ValueError("x"), 70),
    ],
)
def test_every_failure_has_its_exit_code(tmp_path: Path, error: Exception, exit_code: int) -> None:
    attempt = Broken(tmp_path, SignalControl(tmp_path))
    attempt.error = error
    assert attempt.run() == exit_code
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["outcome"] == "failed"
    assert result["code"] == getattr(error, "code", "INTERNAL")
    assert result["evidence"]["batches_done"] == 0


def test_the_program_is_light_until_its_first_event() -> None:
    script = "import sys, worker.trainer; print(sorted({'torch', 'cv2', 'numpy'} & set(sys.modules)))"
    output = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"


def test_a_run_starts_from_weights_that_were_imported(tmp_path: Path, dataset: dict[str, str]) -> None:
    imported = tmp_path / "imported"
    imported.mkdir()
    assert import_weights(imported, weights_dir() / "yolov5n.pt", "yolov5n.pt", "0" * 64) == 0
    folder = write_order(
        tmp_path / "run",
        dataset,
        config={**SETTINGS, "epochs": 1, "batch": 8},
        architecture={"name": "yolov5n", "text": zoo_text("yolov5n").replace("nc: 80", "nc: 2")},
        weights=str(imported / "weights.pt"),
    )
    code, result = finished(folder)
    assert (code, result["outcome"]) == (0, "succeeded")
    said = [line.event.message for line in told(folder) if line.event.type == "log"]
    (start,) = [message for message in said if "start from" in message]
    assert start.startswith("342 of 349 tensors start from the given weights; left out: ")
    assert "model.24.m.0.weight (shape [255, 64, 1, 1] for [21, 64, 1, 1])" in start
