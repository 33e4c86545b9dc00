"""A process that stands by takes the next attempt; whatever it cannot take gets a process of its own."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from api.domain.settings import Settings, allow_simulation
from worker.child import ChildSpec, Spawner, child_environment
from worker.fleet import SlotSpec
from worker.standby import Standby, trainer_environment
from worker.tasks import WorkerSlot

# What the trainer does without what it computes: notes how it was started, where it works, what it was given.
PROGRAM = """
import os, queue, sys, time
from worker.lifeline import STANDBY, hold_lifeline, take_over
if sys.argv[1] == STANDBY:
    orders = queue.SimpleQueue()
    hold_lifeline(orders.put)
    take_over(orders.get())
else:
    hold_lifeline()
print(sys.argv[1] == STANDBY, os.getcwd(), os.environ["OMP_NUM_THREADS"], flush=True)
time.sleep(99)
"""
COMMAND = (sys.executable, "-c", PROGRAM)


def until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "watchdog"
        time.sleep(0.01)


def spec(folder: Path, threads: int = 2) -> ChildSpec:
    folder.mkdir()
    environment = child_environment({"OMP_NUM_THREADS": str(threads)})
    return ChildSpec((*COMMAND, str(folder)), environment, folder, folder / "log")


def said(folder: Path) -> str:
    until(lambda: (folder / "log").exists() and (folder / "log").read_text().endswith("\n"))
    return (folder / "log").read_text()


@pytest.fixture
def standby(tmp_path: Path) -> Iterator[Standby]:
    spawner = Spawner()
    made = Standby(spawner, COMMAND, child_environment({"OMP_NUM_THREADS": "2"}), tmp_path)
    yield made
    made.close()
    spawner.close()


def test_the_next_attempt_goes_to_the_process_that_waits(standby: Standby, tmp_path: Path) -> None:
    standby.prepare()
    waiting = standby.pid
    standby.prepare()
    assert standby.pid == waiting, "one is enough"
    child = standby.spawn(spec(tmp_path / "a"))
    assert child.pid == waiting and standby.pid is None
    assert said(tmp_path / "a") == f"True {tmp_path / 'a'} 2\n"
    standby.prepare()
    assert standby.pid not in (None, waiting)
    assert child.kill() == -signal.SIGKILL and child.left_nothing


def test_another_environment_gets_a_process_of_its_own(standby: Standby, tmp_path: Path) -> None:
    standby.prepare()
    waiting = standby.pid
    child = standby.spawn(spec(tmp_path / "a", threads=1))
    assert said(tmp_path / "a") == f"False {tmp_path / 'a'} 1\n"
    assert waiting is not None and not psutil.pid_exists(waiting), "it would only hold memory"
    child.kill()


@pytest.mark.parametrize("prepared", [True, False])
def test_nobody_waits(standby: Standby, tmp_path: Path, prepared: bool) -> None:
    if prepared:
        standby.prepare()
        assert standby.pid is not None
        os.killpg(standby.pid, signal.SIGKILL)
        until(lambda: psutil.Process(standby.pid).status() == psutil.STATUS_ZOMBIE)
    child = standby.spawn(spec(tmp_path / "a"))
    assert said(tmp_path / "a").startswith("False")
    child.kill()


def test_one_that_died_is_replaced(standby: Standby) -> None:
    standby.prepare()
    first = standby.pid
    assert first is not None
    os.killpg(first, signal.SIGKILL)
    until(lambda: psutil.Process(first).status() == psutil.STATUS_ZOMBIE)
    standby.prepare()
    assert standby.pid not in (None, first)


def test_the_lifeline_holds_before_and_after(standby: Standby, tmp_path: Path) -> None:
    standby.prepare()
    child = standby.spawn(spec(tmp_path / "a"))
    said(tmp_path / "a")
    assert child.tell(b"whatever comes later is not for it\n")
    assert child.poll() is None
    child._close_lifeline()  # as the end of our process would
    assert child.wait(10) == -signal.SIGKILL


def test_which_slots_keep_one(tmp_path: Path) -> None:
    allow_simulation(tmp_path)

    def keeps(queue: str, *, simulate: bool = False, prestart: bool = True) -> bool:
        settings = Settings(data_dir=tmp_path, simulate=simulate, prestart=prestart)
        slot = WorkerSlot.open(settings, SlotSpec((queue,), 0, "testhost"))
        try:
            return slot.standby is not None
        finally:
            slot.close()

    assert keeps("train.cpu")
    assert not keeps("train.cpu", prestart=False)
    assert not keeps("train.cpu", simulate=True)
    assert not keeps("ingest")


def test_the_environment_follows_job_and_slot(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, train_threads=3, omp_wait_policy="active")
    slot = SlotSpec(("train.g1",), 1, "testhost", gpus=("GPU-1",))
    assert trainer_environment(settings, slot)["OMP_NUM_THREADS"] == "3"
    found = trainer_environment(settings, slot, 1)
    assert (found["OMP_NUM_THREADS"], found["OMP_WAIT_POLICY"]) == ("1", "ACTIVE")
    assert found["CUDA_VISIBLE_DEVICES"] == "GPU-1"
