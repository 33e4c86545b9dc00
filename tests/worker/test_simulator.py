"""The simulated trainer as the supervisor runs it: files, signals, exit codes, nothing outside its folder."""

from __future__ import annotations

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

from api.domain.settings import SIMULATION_MARK, allow_simulation
from tests.support.shared import ROOT
from worker import pace, simulator, trainer
from yolocore.spec.config import parse_config
from yolocore.spec.events import JournalLine, Resume, decode_line

CONFIG = {"epochs": 3, "imgsz": 64, "batch": 4}
PACE: dict[str, Any] = {"batches": 4, "batch_s": 0.005}


class Bench:
    """A data folder for simulated jobs, with the folders of one job's attempts."""

    def __init__(self, data: Path) -> None:
        self.data = data
        allow_simulation(data)
        self.manifest = data / "manifest.json"
        self.manifest.write_text(json.dumps({"v": 1, "names": ["a"], "images": []}))
        self.set_pace()

    def set_pace(self, **more: Any) -> None:
        part = self.data / "pace.part"
        part.write_text(json.dumps({**PACE, **more}))
        part.replace(self.data / pace.PACE_FILE)

    def order(self, attempt: int = 1, resume: dict[str, Any] | None = None, **changes: Any) -> Path:
        folder = self.data / "jobs" / "job_1" / "attempts" / str(attempt)
        folder.mkdir(parents=True)
        order = {
            "v": 1,
            "job": "job_1",
            "attempt": attempt,
            "config": CONFIG,
            "architecture": {"name": "tiny.yaml", "text": "nc: 1"},
            "dataset": {"manifest": str(self.manifest), "images_root": str(self.data)},
            "weights": None,
            "resume": resume,
            "settings": {"device": "cpu", "checkpoint_every_s": 60},
        }
        (folder / "config.json").write_text(json.dumps({**order, **changes}))
        return folder


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "data")


@contextmanager
def started(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "train.log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "worker.simulator", str(folder)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=ROOT,
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
        code = child.wait(20)
    path = folder / "result.json"
    return code, json.loads(path.read_text()) if path.exists() else {}


def told(folder: Path) -> list[JournalLine]:
    path = folder / "events.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [decode_line(line) for line in lines if line.endswith(b"\n")]


def of(folder: Path, kind: str) -> list[Any]:
    return [line.event for line in told(folder) if line.event.type == kind]


def await_told(folder: Path, condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, (folder / "train.log").read_text()
        time.sleep(0.01)


def ask(folder: Path, child: subprocess.Popen[bytes], kind: str) -> int:
    (folder / "stop.json").write_text(json.dumps({"kind": kind}))
    child.send_signal(signal.SIGTERM)
    return child.wait(20)


def final(folder: Path) -> str:
    content = json.loads((folder / "artifacts" / "last.pt").read_text())
    assert content["format"] == simulator.FORMAT and "no weights" in content["note"]
    return str(content["digest"])


def resume_of(folder: Path) -> dict[str, Any]:
    saved = [line for line in told(folder) if line.event.type == "checkpoint"][-1]
    event: Any = saved.event
    place = {"epoch": event.epoch, "batch": event.batch}
    return {"checkpoint": str(folder / event.path), **place, "after": f"1-{saved.seq}"}


CALM = simulator.final_digest(parse_config(CONFIG), 4)


def test_a_whole_run_leaves_what_a_trainer_leaves(bench: Bench) -> None:
    folder = bench.order()
    code, result = finished(folder)
    assert (code, result["outcome"]) == (trainer.DONE, "succeeded")
    assert [line.seq for line in told(folder)] == list(range(1, len(told(folder)) + 1))
    (start,) = of(folder, "start")
    assert start.simulated and (start.epochs, start.batches_per_epoch) == (3, 4)
    assert [row.epoch for row in of(folder, "epoch")] == [0, 1, 2]
    assert result["best"]["epoch"] in (0, 1, 2) and result["metrics"]["map50"] > 0
    names = [artifact.name for artifact in of(folder, "artifact")]
    assert names == ["best.pt", "last.pt", "results.csv", "metrics.json"]
    assert json.loads((folder / "artifacts" / "metrics.json").read_text())["simulated"] is True
    assert final(folder) == CALM
    kinds = [line.event.type for line in told(folder)]
    assert kinds.index("checkpoint") == kinds.index("epoch") + 1


@pytest.mark.parametrize(("kind", "code"), [("pause", trainer.STOPPED), ("drain", trainer.STOPPED)])
def test_a_run_goes_on_exactly_where_it_was_asked_to_stop(bench: Bench, kind: str, code: int) -> None:
    bench.set_pace(hold=(1, 2))
    folder = bench.order()
    with started(folder) as child:
        await_told(folder, lambda: any(batch.epoch == 1 for batch in of(folder, "batch")))
        assert ask(folder, child, kind) == code
    resume = resume_of(folder)
    assert (resume["epoch"], resume["batch"]) == (1, 2)
    bench.set_pace()
    second = bench.order(2, resume)
    assert finished(second)[0] == trainer.DONE
    first = told(second)[0].event
    assert isinstance(first, Resume) and first.simulated
    assert [row.epoch for row in of(second, "epoch")] == [1, 2]
    assert final(second) == CALM


def test_stop_delivers_and_cancel_does_not(bench: Bench) -> None:
    bench.set_pace(hold=(1, 2))
    stopped, cancelled = bench.order(1), bench.order(2)
    for folder, kind, code in ((stopped, "stop", trainer.DONE), (cancelled, "cancel", trainer.STOPPED)):
        with started(folder) as child:
            await_told(folder, lambda place=folder: of(place, "checkpoint"))
            assert ask(folder, child, kind) == code
        result = json.loads((folder / "result.json").read_text())
        assert (result["outcome"], result["kind"]) == ("stopped", kind)
    assert [artifact.name for artifact in of(stopped, "artifact")] == ["best.pt", "last.pt", "results.csv"]
    assert of(cancelled, "artifact") == []


def test_the_end_of_the_lifeline_ends_it_within_a_second(bench: Bench) -> None:
    bench.set_pace(hold=(0, 0))
    folder = bench.order()
    with started(folder) as child:
        await_told(folder, lambda: of(folder, "start"))
        assert child.stdin is not None
        child.stdin.close()
        began = time.monotonic()
        assert child.wait(5) == -signal.SIGKILL
        assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("how", "code", "named"),
    [
        ("kill", -signal.SIGKILL, None),
        ("segfault", -signal.SIGSEGV, None),
        ("exit", 3, None),
        ("memory", trainer.OUT_OF_MEMORY, "OUT_OF_MEMORY"),
        ("disk", trainer.DISK_FULL, "DISK_FULL"),
        ("nan", trainer.DATA, "NON_FINITE"),
    ],
)
def test_faults_end_it_as_they_would_a_trainer(bench: Bench, how: str, code: int, named: str | None) -> None:
    bench.set_pace(faults=[{"epoch": 1, "batch": 1, "how": how, "code": 3}])
    ended, result = finished(bench.order())
    assert ended == code and result.get("code") == named
    if named is not None:
        assert result["evidence"]["batches_done"] == 5


@pytest.mark.parametrize("how", ["deaf", "hang"])
def test_one_that_does_not_listen_has_to_be_killed(bench: Bench, how: str) -> None:
    bench.set_pace(batch_s=0.05, faults=[{"epoch": 0, "batch": 0, "how": how}])
    folder = bench.order(config={**CONFIG, "epochs": 1000})
    with started(folder) as child:
        await_told(folder, lambda: of(folder, "start"))
        child.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.5)


def test_it_is_refused_outside_a_folder_made_for_it(bench: Bench) -> None:
    assert simulator.MARK == SIMULATION_MARK
    folder = bench.order()
    (bench.data / SIMULATION_MARK).unlink()
    code, result = finished(folder)
    assert (code, result) == (trainer.INTERNAL, {}) and told(folder) == []
    assert "no data folder for simulated jobs" in (folder / "train.log").read_text()


def test_a_trainer_s_checkpoint_is_none_of_its_own(bench: Bench) -> None:
    other = bench.data / "e0001-b000000.ckpt"
    other.write_bytes(b"PK\x03\x04")
    resume = {"checkpoint": str(other), "epoch": 1, "batch": 0, "after": "1-5"}
    code, result = finished(bench.order(2, resume))
    assert (code, result["code"]) == (trainer.DATA, "CHECKPOINT_INVALID")


def test_a_pace_that_is_none_is_told(bench: Bench) -> None:
    bench.set_pace(speed="fast")
    code, result = finished(bench.order())
    assert (code, result["code"]) == (trainer.DATA, "CONFIG_INVALID") and "speed" in result["message"]


def test_the_nearest_pace_counts(bench: Bench) -> None:
    folder = bench.order()
    near = bench.data / "jobs" / "job_1" / pace.PACE_FILE
    near.write_text(json.dumps({"batches": 7}))
    read = pace.PaceReader(folder)
    assert read().batches == 7
    near.unlink()
    assert read().batches == PACE["batches"]


def test_it_loads_neither_torch_nor_opencv() -> None:
    told_of = (
        "import sys, worker.simulator; print([n for n in ('torch', 'cv2', 'numpy') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", told_of], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.strip() == "[]"
