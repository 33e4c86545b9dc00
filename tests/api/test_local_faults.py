"""`trainshed up --simulate` under faults: members and supervisor killed, Ctrl-C, servers of others."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from api.client import Job
from tests.chaos.real_stack import Follower, RealStack, interrupt, without_repeats
from tests.support.figures import record
from tests.support.members import living, until
from tests.support.postgres import PostgresServer
from tests.support.shapes import TINY_MODEL, write_shapes
from tests.support.valkey import running_valkey
from worker.pace import PACE_FILE

SHORT = {"HEARTBEAT_S": "0.2", "LEASE_S": "2.5", "REAPER_GAP_S": "2", "CHECKPOINT_EVERY_S": "0.3"}
EPOCHS = 3
# Words of the command line of each member's own process, and the name it goes by.
MEMBERS = {
    "api": ("api", ["-m", "api.server"]),
    "ingest worker": ("ingest worker", ["-m", "worker.app", "ingest"]),
    "train worker": ("train worker", ["-m", "worker.app", "train.cpu"]),
    "valkey itself": ("valkey", ["--unixsocket"]),
    "valkey's tether": ("valkey", ["-m", "api.stack.tether"]),
}


@dataclass
class Bench:
    """A stack that simulates, with a dataset and a model in it once it is up."""

    stack: RealStack
    archive: Path
    dataset: str = ""
    architecture: str = ""

    def set_pace(self, **more: Any) -> None:
        part = self.stack.folder / "pace.part"
        part.write_text(json.dumps({"batches": 8, "batch_s": 0.02, **more}))
        part.replace(self.stack.folder / PACE_FILE)

    def ensure_up(self) -> float:
        taken = self.stack.ensure_up()
        if not self.dataset:
            with self.stack.client() as client:
                dataset = client.push_dataset(self.archive, "shapes")
                assert client.wait_for_dataset(dataset.id, timeout_s=60).status == "ready"
                self.dataset = dataset.id
                self.architecture = client.push_architecture(TINY_MODEL, "tiny").id
        return taken

    def job_in_middle(self) -> Job:
        """Submit a job, let it train to the middle of epoch 1 and stand there."""
        self.ensure_up()
        self.set_pace(hold=(1, 4))
        asked = {"dataset": self.dataset, "architecture": self.architecture, "config": {"epochs": EPOCHS}}
        with self.stack.client() as client:
            job = client.submit(asked)

        def stands() -> bool:
            batches = [e for e in self.stack.journal(job.id, 1) if e["type"] == "batch"]
            return bool(batches) and (batches[-1]["epoch"], batches[-1]["batch"]) == (1, 3)

        until(stands, "the middle of epoch 1")
        return job

    def assert_ends_well(self, job: Job, *, attempts: int) -> None:
        follower = Follower(self.stack, job)
        events = follower.join()
        told = [event.data["epoch"] for event in without_repeats(events) if event.type == "epoch"]
        assert told == list(range(EPOCHS))
        with self.stack.client() as client:
            ended = client.job(job.id)
            assert (ended.status, ended.attempt, ended.simulated) == ("succeeded", attempts, True)

    def strays(self) -> list[psutil.Process]:
        """Return the living processes of this stack that its supervisor would not find."""
        known = {process.pid for process in self.stack.family()} | {self.stack.process.pid}
        found = []
        for process in psutil.process_iter(["cmdline"]):
            if process.pid not in known and str(self.stack.folder) in _marks(process):
                found.append(process)
        return living(found)


def _marks(process: psutil.Process) -> str:
    """Return what tells whose a process is: its command line, and the data folder it was told."""
    try:
        return " ".join([*process.cmdline(), process.environ().get("TRAINSHED_DATA_DIR", "")])
    except psutil.Error:
        return ""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shapes")
    write_shapes(root / "shapes", num_train=4, num_val=2)
    with zipfile.ZipFile(root / "shapes.zip", "w") as packed:
        for path in sorted((root / "shapes").rglob("*.*")):
            packed.write(path, path.relative_to(root / "shapes"))
    return root / "shapes.zip"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, archive: Path) -> Iterator[Bench]:
    stack = RealStack(tmp_path_factory.mktemp("simulated") / "data", "--simulate", **SHORT)
    try:
        yield Bench(stack, archive)
    finally:
        stack.end()


def test_people_are_told_that_nothing_is_trained(bench: Bench) -> None:
    bench.ensure_up()
    assert "SIMULATED: jobs only pretend to train" in bench.stack.output
    assert "\x1b[" not in bench.stack.output, "no colours where no person reads"


@pytest.mark.parametrize("member", MEMBERS)
def test_a_killed_member_comes_back_and_leaves_nothing(bench: Bench, member: str) -> None:
    name, words = MEMBERS[member]
    job = bench.job_in_middle()
    victim = bench.stack.one(*words)
    below = victim.children(recursive=True)
    before = bench.stack.output.count(f"{name} is ready again")
    victim.kill()
    record(
        "children of a killed member are gone after",
        until(lambda: living(below) == [], "what it had started to be gone", 10),
        "s",
        1.0,
    )
    back = until(lambda: bench.stack.output.count(f"{name} is ready again") > before, f"{name} to be back")
    record("a killed member is back after", back, "s")
    assert f"{name} ended" in bench.stack.output
    until(lambda: bench.strays() == [], "no process that nobody looks after", 5)
    bench.set_pace()
    bench.assert_ends_well(job, attempts=2 if member == "train worker" else 1)


def test_one_interrupt_drains_and_the_next_start_goes_on(bench: Bench) -> None:
    job = bench.job_in_middle()
    family = bench.stack.family()
    interrupt(bench.stack.process)
    taken = until(lambda: bench.stack.process.poll() is not None, "the end of the stack", 30)
    record("one Ctrl-C has drained the stack after", taken, "s")
    assert bench.stack.process.returncode == 0 and living(family) == [], bench.stack.output
    assert "killing" not in bench.stack.output
    sql = "SELECT status, failures, preemptions, pointer FROM jobs WHERE id = ?"
    ((status, failures, preemptions, pointer),) = bench.stack.query(sql, job.id)
    place = json.loads(pointer)
    assert (status, failures, preemptions, place["epoch"], place["batch"]) == ("queued", 0, 1, 1, 4)
    bench.set_pace()
    bench.ensure_up()
    bench.assert_ends_well(job, attempts=2)


def test_a_killed_supervisor_leaves_no_orphan_and_the_next_start_goes_on(bench: Bench) -> None:
    job = bench.job_in_middle()
    family = bench.stack.family()
    bench.stack.process.kill()
    bench.stack.process.wait()
    # At once: it has to wait until the last of them is gone.
    bench.set_pace()
    record("a killed supervisor's stack is up again after", bench.ensure_up(), "s")
    assert living(family) == []
    bench.assert_ends_well(job, attempts=2)


def test_real_jobs_are_not_mixed_with_simulated_ones(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "book.sqlite3").touch()
    stack = RealStack(tmp_path / "data", "--simulate")
    try:
        with pytest.raises(AssertionError, match="holds real jobs; simulate in a folder of its own"):
            stack.ensure_up()
        assert stack.process.wait(10) == 1
    finally:
        stack.end()


def test_servers_of_others_are_used_and_not_started(
    tmp_path: Path, archive: Path, postgres: PostgresServer
) -> None:
    with running_valkey() as valkey:
        urls = {"REDIS_URL": valkey.url, "DATABASE_URL": postgres.new_database("others")}
        stack = RealStack(tmp_path / "data", "--simulate", **SHORT, **urls)
        bench = Bench(stack, archive)
        try:
            job = bench.job_in_middle()
            bench.set_pace()
            bench.assert_ends_well(job, attempts=1)
            lines = [" ".join(process.cmdline()) for process in living(stack.family())]
            assert len(lines) == 3 and not any("valkey" in line for line in lines), lines
            assert not (stack.folder / "book.sqlite3").exists()
            with valkey.client() as client:
                assert client.exists(f"trainshed:events:{job.id}")
            interrupt(stack.process)
            assert stack.process.wait(30) == 0
            with valkey.client() as client:
                assert client.ping()
        finally:
            stack.end()
