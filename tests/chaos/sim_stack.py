"""The whole service as separate processes on short periods, with trainers that only pretend.

Every member is the real program: API processes, train workers, an ingest worker, Valkey. Tests kill, stop
and continue them one by one; there is no supervisor that would start them again.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil
import redis
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from api.client import Client, Job
from api.domain.blobs import Blob, BlobStore
from api.domain.datasets import DatasetBook
from api.domain.fleet import WorkerBook
from api.domain.records import DatasetStatus, IngestResult
from api.domain.settings import Settings, allow_simulation
from api.domain.store import Store, migrate, open_store
from api.domain.tasks import TaskBook
from api.domain.tokens import TokenBook
from tests.chaos.outcome import FINAL, Outcomes
from tests.chaos.watching import PATIENCE_S
from tests.support.members import Program, living, until
from tests.support.shapes import NAMES, TINY_MODEL
from tests.support.shared import ROOT
from tests.support.valkey import ValkeyProcess, running_valkey
from worker.pace import PACE_FILE

# Short, but a claim must outlive the worst pause of a loaded machine with two cores.
PERIODS: Mapping[str, Any] = {
    "heartbeat_s": 0.2,
    "lease_s": 3.0,
    "reaper_tick_s": 0.2,
    "reaper_gap_s": 2.0,
    "dispatcher_tick_s": 0.2,
    "singleton_s": 2.0,
    "retry_backoff_s": 0.1,
    "checkpoint_every_s": 0.3,
    "stop_grace_s": 5.0,
    "redis_timeout_s": 2.0,
}


class SimStack(Outcomes):
    """A stack in a folder of its own; use it in a `with` block, which starts all members and ends them.

    `settings` are those of every member beside the periods; `of_role` those of one role alone (`api`,
    `worker`, `ingest`), such as a `redis_url` that leads through a proxy. `database_url` is a PostgreSQL that
    is there already, `valkey` a server of the test's own. What the harness itself asks goes through no proxy.
    """

    def __init__(
        self,
        folder: Path,
        *,
        workers: int = 2,
        apis: int = 1,
        ingest: bool = False,
        valkey: ValkeyProcess | None = None,
        database_url: str | None = None,
        of_role: Mapping[str, Mapping[str, Any]] | None = None,
        **settings: Any,
    ) -> None:
        self.folder = folder
        self._exits = contextlib.ExitStack()
        self.valkey = valkey or self._exits.enter_context(running_valkey())
        allow_simulation(folder)
        values: dict[str, Any] = {**PERIODS, "data_dir": folder, "simulate": True, **settings}
        self.settings = Settings(**values, redis_url=self.valkey.url, database_url=database_url)
        self._of_role = of_role or {}
        self.logs = folder.parent / "logs"
        self.logs.mkdir(exist_ok=True)
        self.members: dict[str, Program] = {}
        for number in range(apis):
            self._add("api", number, [sys.executable, "-P", "-m", "api.server", "--lifeline"])
        for number in range(workers):
            self._add("worker", number, _worker_command("train.cpu", number))
        if ingest:
            self._add("ingest", 0, _worker_command("ingest", 0))

    def _add(self, role: str, number: int, command: list[str]) -> None:
        name = f"{role}-{number}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TRAINSHED_")}
        values = self.settings.model_dump(mode="json", exclude_unset=True)
        values |= json.loads(json.dumps(dict(self._of_role.get(role, {})), default=str))
        if role == "api":
            values["port"] = _free_port()
        told = {
            f"TRAINSHED_{key.upper()}": value if isinstance(value, str) else json.dumps(value)
            for key, value in values.items()
            if value is not None
        }
        environment = {
            **kept,
            **told,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
        }
        self.members[name] = Program(name, command, environment, self.logs / f"{name}.log")

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            print(self.last_words())
        self.end()

    # ---- members

    def start(self) -> float:
        """Make the book, start every member, and return the seconds until all were ready."""
        began = time.monotonic()
        migrate(self.settings.sql_url)
        self.store: Store = self._exits.enter_context(contextlib.closing(open_store(self.settings)))
        self.token = TokenBook(self.store).create("local", label="chaos").secret
        self.dataset_id = self._dataset()
        for member in self.members.values():
            member.start()
        for name in self.members:
            self.await_ready(name)
        with self.client() as client:
            self.architecture_id = client.push_architecture(TINY_MODEL, "tiny").id
        return time.monotonic() - began

    def _dataset(self) -> str:
        """Enter a dataset without pictures that is ready: a simulated run looks at none."""
        principal = TokenBook(self.store).verify(self.token)
        assert principal is not None
        archive = Blob("0" * 64, 1)
        found = DatasetBook(self.store).create(principal.id, "none", archive, file_name="none.zip").dataset
        tasks = TaskBook(self.store, self.settings)
        task = tasks.claim("ingest", "chaos")
        assert task is not None
        content = json.dumps({"v": 1, "names": list(NAMES), "images": []}).encode()
        manifest = BlobStore(self.settings.blobs_dir).put_bytes(content)
        ready = IngestResult(
            DatasetStatus.READY, manifest.sha256, manifest_hash=manifest.sha256, classes=NAMES
        )
        tasks.finish_ingest(task.id, task.attempt, ready)
        return found.id

    def await_ready(self, name: str, timeout_s: float = PATIENCE_S) -> float:
        """Wait until a member serves; return the seconds it took."""
        member = self.members[name]

        def is_ready() -> bool:
            assert member.is_alive, f"{name} ended:\n{member.tail()}"
            if name.startswith("api"):
                return _answers(f"{self.url(int(name[4:]))}/readyz")
            slots = WorkerBook(self.store).list()
            return any(slot.pid == member.pid and slot.state != "gone" for slot in slots)

        return until(is_ready, f"{name} to be ready", timeout_s)

    def restart(self, name: str) -> float:
        """Start a member that has ended, and wait until it is ready."""
        self.members[name].start()
        return self.await_ready(name)

    def of(self, role: str) -> list[Program]:
        """Return the members of a role: `api`, `worker`, `ingest`."""
        return [member for name, member in self.members.items() if name.startswith(f"{role}-")]

    def worker_of(self, job_id: str) -> Program:
        """Return the member that runs a job, as the book has it; fails where none does."""
        pids = [slot.pid for slot in WorkerBook(self.store).list() if slot.current_id == job_id]
        (found,) = [member for member in self.members.values() if member.is_alive and member.pid in pids]
        return found

    def child_of(self, job_id: str, attempt: int | None = None) -> psutil.Process:
        """Return the simulator that runs a job (its newest attempt, or that one); fails where none does."""
        (found,) = self.children(job_id, attempt)
        return found

    def children(self, job_id: str = "", attempt: int | None = None) -> list[psutil.Process]:
        """Return the living simulators of this stack, of all jobs or of one."""
        place = f"{self.folder}/jobs/{job_id}" + (f"/attempts/{attempt}" if attempt is not None else "")
        found = []
        for process in psutil.process_iter(["cmdline"]):
            line = process.info["cmdline"] or []
            if "worker.simulator" in line and line[-1].startswith(place):
                found.append(process)
        return living(found)

    def end(self) -> None:
        """Kill whatever is left."""
        for member in self.members.values():
            member.end()
        for process in self.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._exits.close()

    def last_words(self) -> str:
        """Return the end of every member's log."""
        return "\n".join(f"---- {name}\n{member.tail()}" for name, member in self.members.items())

    # ---- the service

    def url(self, api: int = 0) -> str:
        """Return the address of one API process."""
        return f"http://127.0.0.1:{self.members[f'api-{api}'].environment['TRAINSHED_PORT']}"

    def client(self, api: int = 0, url: str | None = None) -> Client:
        """Open a client of one API process, or of a proxy before it."""
        return Client(url or self.url(api), self.token)

    def request(self, **config: Any) -> dict[str, Any]:
        """Return what a job asks for; `config` is laid over that of three epochs."""
        full = {"epochs": 3, **config}
        return {"dataset": self.dataset_id, "architecture": self.architecture_id, "config": full}

    def submit(self, count: int = 1, *, api: int = 0, **config: Any) -> list[Job]:
        """Submit several jobs of one config."""
        with self.client(api) as client:
            return [client.submit(self.request(**config)) for _ in range(count)]

    def redis(self) -> redis.Redis:
        """Open a connection to Valkey itself."""
        return redis.Redis.from_url(self.valkey.url, socket_timeout=5)

    def query(self, sql: str, **values: Any) -> list[tuple[Any, ...]]:
        """Read the book itself, with `:name` for values; SQLite and PostgreSQL."""

        def read(conn: Connection) -> list[tuple[Any, ...]]:
            return [tuple(row) for row in conn.execute(sa.text(sql), values)]

        return self.store.read(read)

    def states(self) -> dict[str, tuple[str, int]]:
        """Return (status, attempt) of every job."""
        return {job: (status, attempt) for job, status, attempt in self.query(
            "SELECT id, status, attempt FROM jobs"
        )}  # fmt: skip

    def state(self, job_id: str) -> tuple[str, int]:
        """Return (status, attempt) of a job."""
        return self.states()[job_id]

    def await_state(
        self, job_id: str, statuses: str | Collection[str], *, attempt: int = 0, timeout_s: float = PATIENCE_S
    ) -> float:
        """Wait until a job is in one of the states, in this attempt or a later one; return the seconds."""
        wanted = {statuses} if isinstance(statuses, str) else set(statuses)

        def is_there() -> bool:
            status, now = self.state(job_id)
            return status in wanted and now >= attempt

        return until(is_there, f"{job_id} to be {' or '.join(sorted(wanted))}", timeout_s)

    def await_all(
        self, jobs: Collection[Job], statuses: Collection[str] = FINAL, *, timeout_s: float = PATIENCE_S
    ) -> float:
        """Wait until all these jobs are in one of the states; return the seconds."""
        ids = {job.id for job in jobs}

        def are_there() -> bool:
            return all(status in statuses for job, (status, _) in self.states().items() if job in ids)

        return until(are_there, f"{len(ids)} jobs to be {' or '.join(sorted(statuses))}", timeout_s)

    def await_place(self, job_id: str, epoch: int, batch: int = 0, *, attempt: int | None = None) -> float:
        """Wait until the run has told a batch at or after a place, in this attempt or the newest."""

        def is_there() -> bool:
            told = self.journal(job_id, attempt or self.state(job_id)[1])
            places = [(line["epoch"], line["batch"]) for line in told if line["type"] == "batch"]
            return bool(places) and places[-1] >= (epoch, batch)

        return until(is_there, f"{job_id} to reach epoch {epoch}, batch {batch}")

    # ---- the pretended training

    def set_pace(self, job_id: str | None = None, **pace: Any) -> None:
        """Say how runs go (`worker.pace.Pace`), all or one, also while they go; the rest has its default."""
        folder = self.folder if job_id is None else self.folder / "jobs" / job_id
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{PACE_FILE}.part"
        part.write_text(json.dumps(pace), encoding="utf-8")
        part.replace(folder / PACE_FILE)

    def attempt_folder(self, job_id: str, attempt: int) -> Path:
        """Return where an attempt works."""
        return self.settings.attempt_dir(job_id, attempt)

    def journal(self, job_id: str, attempt: int) -> list[dict[str, Any]]:
        """Return what an attempt told, whole lines only."""
        try:
            data = (self.attempt_folder(job_id, attempt) / "events.jsonl").read_bytes()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in data.splitlines(keepends=True) if line.endswith(b"\n")]


def _worker_command(queue: str, number: int) -> list[str]:
    command = [sys.executable, "-P", "-m", "worker.app", "--lifeline"]
    return [*command, "--queues", queue, "--slot", str(number)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False
