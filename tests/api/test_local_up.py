"""`trainshed up` for real: every member, one small training through all of them, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from api import local
from api.client import Client
from api.client.follow import follow
from api.stack.broker import SOCKET_PATH_BYTES, answers, socket_path
from examples.digits import SceneRecipe, build_archive
from tests.support.shared import ROOT

# A proxy stands before the service: nothing on this machine may depend on it.
PROXIED = {
    "TRAINSHED_PUBLIC_URL": "https://trainshed.example.org/",
    "TRAINSHED_TRUSTED_HOSTS": "trainshed.example.org, other.example.org",
}


class Stack:
    """A running stack in a folder of its own."""

    def __init__(self, folder: Path, *flags: str) -> None:
        # Open to others, as an ordinary mkdir leaves it.
        folder.mkdir(mode=0o755, exist_ok=True)
        self.folder = folder
        self.output = folder.with_suffix(".out")
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "api.local", "--data", str(folder), "--port", "0", *flags],
                cwd=ROOT,
                env={**os.environ, "TRAINSHED_STOP_GRACE_S": "10", "CUDA_VISIBLE_DEVICES": "", **PROXIED},
                umask=0o022,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def text(self) -> str:
        return self.output.read_text(encoding="utf-8")

    def await_up(self) -> None:
        until(lambda: "open http" in self.text() or self.process.poll() is not None, 60)
        assert self.process.poll() is None, self.text()

    def client(self) -> Client:
        found = json.loads((self.folder / "run" / "connection.json").read_text(encoding="utf-8"))
        return Client(found["url"], found["token"])

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def end(self) -> None:
        if self.process.poll() is None:
            family = self.family()
            self.process.kill()
            for process in family:
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue
        self.process.wait()


def until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait for a condition, or fail."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def living(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return those that still run."""
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    running = Stack(tmp_path_factory.mktemp("up") / "data")
    try:
        running.await_up()
        yield running
    finally:
        running.end()


def test_a_dataset_and_a_model_become_weights(stack: Stack, tmp_path: Path) -> None:
    archive = tmp_path / "digits.zip"
    archive.write_bytes(build_archive(SceneRecipe(num_train=8, num_val=4)))
    config = {"epochs": 2, "imgsz": 64, "batch": 4}
    with stack.client() as client:
        dataset = client.wait_for_dataset(client.push_dataset(archive, "digits").id, timeout_s=60)
        assert (dataset.status, dataset.splits) == ("ready", {"train": 8, "val": 4, "test": 0})
        text = (ROOT / "examples" / "digits.yaml").read_text(encoding="utf-8")
        architecture = client.push_architecture(text, "digits")
        job = client.submit({"dataset": dataset.id, "architecture": architecture.id, "config": config})
        events = list(follow(client, job.id, deadline=time.monotonic() + 100))
        assert [event.data["epoch"] for event in events if event.type == "epoch"] == [0, 1]
        ids = [event.id for event in events if event.id and event.type != "end"]
        assert ids == [f"1-{n}" for n in range(1, len(ids) + 1)]
        assert client.job(job.id).status == "succeeded"
        assert [row["epoch"] for row in client.metrics(job.id)] == [0, 1]
        best = next(a for a in client.artifacts(job.id) if a.name == "best.pt")
        assert client.download(job.id, best, tmp_path / "best.pt").stat().st_size == best.size_bytes


def test_a_second_start_is_refused_and_names_the_holder(stack: Stack) -> None:
    command = [sys.executable, "-m", "api.local", "--data", str(stack.folder), "--port", "0"]
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode == local.EXIT_FAILED
    assert f"in use by process {stack.process.pid}" in second.stdout


def test_secrets_are_this_user_s_alone(stack: Stack) -> None:
    paths = [stack.folder, *stack.folder.rglob("*")]
    assert {"train.log", "book.sqlite3", "api.log", "token"} <= {path.name for path in paths}
    assert [path for path in paths if path.stat().st_mode & 0o077] == []


def test_people_are_shown_the_proxy_and_programs_the_port(stack: Stack) -> None:
    assert "open https://trainshed.example.org/?token=tso_" in stack.text()
    found = json.loads((stack.folder / "run" / "connection.json").read_text(encoding="utf-8"))
    assert found["url"].startswith("http://127.0.0.1:")
    for host, status in (("other.example.org", 200), ("elsewhere.example.org", 400)):
        assert httpx.get(f"{found['url']}/readyz", headers={"Host": host}).status_code == status


def test_a_killed_valkey_comes_back(stack: Stack) -> None:
    server = next(p for p in stack.family() if "valkey-server" in p.name())
    server.kill()
    until(lambda: "valkey is ready again" in stack.text(), 20)
    assert answers(f"unix://{socket_path(stack.folder / 'run')}")
    with stack.client() as client:
        assert isinstance(list(client.jobs()), list)


def test_one_sigterm_stops_everything_in_order(stack: Stack) -> None:
    family = stack.family()
    assert len(family) >= 4
    stack.process.send_signal(signal.SIGTERM)
    assert stack.process.wait(40) == local.EXIT_OK
    assert living(family) == []
    assert stack.text().rstrip().endswith("stopped")
    assert not (stack.folder / "run" / "connection.json").exists()


def test_a_killed_supervisor_leaves_no_orphan(tmp_path: Path) -> None:
    running = Stack(tmp_path / "data")
    try:
        running.await_up()
        family = running.family()
        running.process.kill()
        until(lambda: living(family) == [], 25)
    finally:
        running.end()


def test_a_taken_port_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "api.local", "--data", str(tmp_path / "d"), "--port", port]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == local.EXIT_FAILED
    assert f"cannot listen on 127.0.0.1:{port}" in done.stdout and "Traceback" not in done.stderr


@pytest.mark.parametrize("module", ["api.local", "api.server", "worker.app"])
def test_wrong_settings_are_told_in_a_line_each(tmp_path: Path, module: str) -> None:
    wrong = {"TRAINSHED_PORT": "70000", "TRAINSHED_CACHE": "tape", "TRAINSHED_DATA_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", module],
        cwd=ROOT,
        env={**os.environ, **wrong},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 2, done.stderr
    assert "TRAINSHED_PORT: " in lines[0] and "70000" in lines[0]
    assert "TRAINSHED_CACHE: " in lines[1] and "tape" in lines[1]


def test_a_port_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        local.main(["--port", "70000"])
    assert end.value.code == 2
    assert "'70000' is no port" in capsys.readouterr().err


def test_a_socket_path_fits_however_deep_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/tmp")
    assert socket_path(Path("/srv/data/run")) == Path("/srv/data/run/valkey.sock")
    deep = socket_path(Path("/srv") / ("d" * 120) / "run")
    assert len(os.fsencode(deep)) <= SOCKET_PATH_BYTES and deep.parent.stat().st_mode & 0o077 == 0
    assert deep != socket_path(Path("/srv") / ("e" * 120) / "run")


@pytest.mark.parametrize(
    ("num_gpus", "names"), [(0, ["train worker"]), (2, ["train worker 0", "train worker 1"])]
)
def test_one_train_worker_a_gpu_or_one_for_the_cpu(num_gpus: int, names: list[str]) -> None:
    assert [name for name, _ in local.train_slots(num_gpus)] == names
    queues = {flags[flags.index("--queues") + 1] for _, flags in local.train_slots(num_gpus)}
    assert queues == ({"train.g1"} if num_gpus else {"train.cpu"})
