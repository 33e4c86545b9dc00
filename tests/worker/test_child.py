"""Children start with little, end with everything they started, and die with us."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from worker.child import (
    Child,
    ChildSpec,
    Limits,
    Spawner,
    child_command,
    child_environment,
    describe_exit,
    tail_text,
)
from worker.ladder import StopLadder
from worker.outcome import Wish


@pytest.fixture
def spawner() -> Iterator[Spawner]:
    made = Spawner()
    yield made
    made.close()


def spec(folder: Path, code: str, limits: Limits | None = None) -> ChildSpec:
    return ChildSpec(
        (sys.executable, "-c", code), child_environment({}), folder, folder / "log", limits or Limits()
    )


def until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "watchdog"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


READY = (
    "import pathlib, os, time; pathlib.Path('part').write_text(str(os.getpid()));"
    "pathlib.Path('part').rename('ready'); "
)
HELPER = (
    "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)']);"
    "import pathlib, time; pathlib.Path('part').write_text(str(p.pid)); pathlib.Path('part').rename('ready');"
)


def started(child: Child, folder: Path) -> int:
    until(lambda: (folder / "ready").exists() or child.poll() is not None)
    return int((folder / "ready").read_text())


def test_the_environment_is_an_allow_list() -> None:
    source = {
        "PATH": "/bin",
        "TRAINSHED_DATABASE_URL": "secret",
        "AWS_SECRET": "x",
        "LC_ALL": "C",
        "OMP_X": "1",
    }
    made = child_environment({"OMP_NUM_THREADS": "2"}, source)
    assert made.keys() == {"PATH", "LC_ALL", "OMP_X", "OMP_NUM_THREADS", "PYTHONPATH", "PYTHONUNBUFFERED"}


def test_output_and_exit_code(spawner: Spawner, tmp_path: Path) -> None:
    child = spawner.spawn(spec(tmp_path, "import os; print('out', os.getsid(0) == os.getpid()); exit(65)"))
    assert child.wait(10) == 65
    assert tail_text(tmp_path / "log") == "out True"
    assert child.left_nothing


def test_the_end_of_the_leader_ends_its_group(spawner: Spawner, tmp_path: Path) -> None:
    child = spawner.spawn(spec(tmp_path, HELPER))
    helper = started(child, tmp_path)
    assert child.wait(10) == 0
    assert not alive(helper)
    assert child.left_nothing


def test_kill_takes_the_group(spawner: Spawner, tmp_path: Path) -> None:
    child = spawner.spawn(spec(tmp_path, HELPER + "time.sleep(99)"))
    helper = started(child, tmp_path)
    assert child.kill() == -signal.SIGKILL
    assert describe_exit(-signal.SIGKILL) == "SIGKILL"
    assert not alive(helper)


def test_limits_hold(spawner: Spawner, tmp_path: Path) -> None:
    code = READY + "time.sleep(0.5); open('big', 'wb').write(b'x' * 2_000_000)"
    child = spawner.spawn(spec(tmp_path, code, Limits(file_bytes=1_000_000)))
    assert child.wait(10) not in (0, None)
    assert (tmp_path / "big").stat().st_size == 1_000_000


def test_the_ladder_ends_a_child_that_does_not_listen(spawner: Spawner, tmp_path: Path) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + READY + "time.sleep(99)"
    child = spawner.spawn(spec(tmp_path, deaf))
    started(child, tmp_path)
    ladder = StopLadder(child, tmp_path, grace_s=0.2)
    ladder.step()
    ladder.ask("drain")
    ladder.ask(None)
    assert json.loads((tmp_path / "stop.json").read_text())["kind"] == "drain"
    ladder.ask("cancel")
    assert json.loads((tmp_path / "stop.json").read_text())["kind"] == "cancel"
    ladder.ask("pause")
    assert ladder.asked == "cancel"
    assert child.poll() is None
    until(lambda: ladder.step() or child.poll() is not None)
    assert child.poll() == -signal.SIGKILL


def test_a_full_disk_does_not_keep_the_ladder_from_ending_a_child(spawner: Spawner, tmp_path: Path) -> None:
    """The folder of the orders is gone: whatever is written into it fails as on a full disk."""
    child = spawner.spawn(spec(tmp_path, READY + "time.sleep(99)"))
    started(child, tmp_path)
    orders = tmp_path / "orders"
    # Long enough that no load lets a quarter of it, the disk's share, pass before the folder is made.
    ladder = StopLadder(child, orders, grace_s=60.0)
    ladder.ask("pause")
    # There may be space soon: the child is not told yet to stop, as it could not know what for.
    assert child.wait(0.1) is None
    ladder.step()
    assert child.poll() is None
    orders.mkdir()
    until(lambda: ladder.step() or child.poll() is not None)
    assert child.poll() == -signal.SIGTERM
    assert json.loads((orders / "stop.json").read_text())["kind"] == "pause"


@pytest.mark.parametrize("wish", ["drain", "stop", "cancel"])
def test_a_disk_that_stays_full_only_delays_the_end(spawner: Spawner, tmp_path: Path, wish: Wish) -> None:
    child = spawner.spawn(spec(tmp_path, READY + "time.sleep(99)"))
    started(child, tmp_path)
    ladder = StopLadder(child, tmp_path / "orders", grace_s=0.4)
    ladder.ask(wish)
    until(lambda: ladder.step() or child.poll() is not None)
    assert child.poll() == -signal.SIGTERM


STACKS = (
    "import faulthandler, signal; faulthandler.register(signal.SIGUSR1, all_threads=True)\n"
    "def stuck_here(): time.sleep(99)\n"
)


def test_stacks_of_a_child_that_writes_them(spawner: Spawner, tmp_path: Path) -> None:
    child = spawner.spawn(spec(tmp_path, STACKS + READY + "stuck_here()"))
    started(child, tmp_path)
    assert child.dump_stacks()
    until(lambda: "stuck_here" in tail_text(tmp_path / "log"))
    assert child.describe()["state"] == "sleeping"
    assert child.kill() == -signal.SIGKILL
    assert not child.dump_stacks()


def test_a_child_that_would_die_of_the_question_is_not_asked(spawner: Spawner, tmp_path: Path) -> None:
    child = spawner.spawn(spec(tmp_path, READY + "time.sleep(99)"))
    started(child, tmp_path)
    assert not child.dump_stacks()
    assert child.wait(0.1) is None
    child.kill()


class Immortal(Child):
    """A process in the hands of a driver that never answers: no signal ends it."""

    def poll(self) -> int | None:
        return None


def test_a_child_that_cannot_be_killed_is_given_up(tmp_path: Path) -> None:
    process = subprocess.Popen(["sleep", "99"], start_new_session=True)
    child = Immortal(process, kill_s=0.2)
    assert child.kill() == -signal.SIGKILL
    assert not child.left_nothing
    began = time.monotonic()
    child.kill()
    assert time.monotonic() - began < 5
    assert process.wait() == -signal.SIGKILL
    assert process.stdin is None


def test_the_programs_a_slot_runs() -> None:
    assert child_command("trainer")[-2:] == ("-m", "worker.trainer")
    assert child_command("simulator")[-2:] == ("-m", "worker.simulator")


SUPERVISOR = """
import sys, time
from pathlib import Path
from worker.child import ChildSpec, Spawner, child_environment
folder = Path(sys.argv[1])
code = ("import os, pathlib, signal, threading, time\\n"
        "pathlib.Path('part').write_text(str(os.getpid())); pathlib.Path('part').rename('ready')\\n"
        "os.read(0, 1); os.killpg(0, signal.SIGKILL)")
Spawner().spawn(ChildSpec((sys.executable, "-c", code), child_environment({}), folder, folder / "log"))
time.sleep(99)
"""


def test_killing_the_supervising_process_kills_the_child(tmp_path: Path) -> None:
    supervisor = subprocess.Popen([sys.executable, "-c", SUPERVISOR, str(tmp_path)], env={**os.environ})
    try:
        until(lambda: (tmp_path / "ready").exists())
        pid = int((tmp_path / "ready").read_text())
        assert alive(pid)
    finally:
        supervisor.kill()
        supervisor.wait()
    until(lambda: not alive(pid))
