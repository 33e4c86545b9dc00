"""The whole service as separate processes on short periods, with trainers that only pretend.

Every member is the real program: API processes, train workers, an ingest worker, Valkey. Tests kill, stop
and continue them one by one; there is no supervisor that would start them again. What came of it is read over
HTTP, from the book, and from the journals.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import httpx
import psutil
import redis
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from api.client import Client, Event, Job
from api.client.follow import follow
from api.domain.blobs import Blob, BlobStore
from api.domain.datasets import DatasetBook
from api.domain.fleet import WorkerBook
from api.domain.records import DatasetStatus, IngestResult
from api.domain.settings import Settings, allow_simulation
from api.domain.store import Store, migrate, open_store
from api.domain.tasks import TaskBook
from api.domain.tokens import TokenBook
from tests.support.members import Program, living, until
from tests.support.shapes import NAMES, TINY_MODEL
from tests.support.shared import ROOT
from tests.support.valkey import ValkeyProcess, running_valkey
from worker.pace import PACE_FILE
from worker.simulator import final_digest
from yolocore.spec.config import parse_config

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
FINAL = frozenset({"succeeded", "failed", "cancelled"})
PATIENCE_S = 60.0


class HasClient(Protocol):
    """Whatever a client of the service can be opened from."""

    def client(self) -> Client:
        """Open a client; the caller closes it."""


class Watcher:
    """A client that follows a job from its first event in a thread, and remembers all it was told."""

    def __init__(self, stack: HasClient, job_id: str, *, give_up_s: float = 30.0) -> None:
        self.job_id = job_id
        self.events: list[Event] = []
        self.error: Exception | None = None
        self._give_up_s = give_up_s
        self._client = stack.client()
        self._thread = threading.Thread(target=self._run, name=f"watch {job_id}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with self._client:
                for event in follow(self._client, self.job_id, give_up_s=self._give_up_s):
                    self.events.append(event)
        except Exception as error:  # noqa: BLE001 - handed to the test, which waits for it
            self.error = error

    def join(self, timeout_s: float = PATIENCE_S) -> list[Event]:
        """Wait for the end of the job and return the events of the run, those with an id, without the end."""
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), f"{self.job_id}: the watcher got no end"
        assert self.error is None, f"{self.job_id}: {self.error!r}"
        assert self.events[-1].type == "end"
        return [event for event in self.events[:-1] if event.id is not None]


def position(event: Event) -> tuple[int, int]:
    """Return (attempt, seq) of an event of a run."""
    assert event.id is not None
    return parse_id(event.id)


def parse_id(text: str) -> tuple[int, int]:
    """Return (attempt, seq) of `<attempt>-<seq>`."""
    attempt, _, seq = text.partition("-")
    return int(attempt), int(seq)


def that_count(events: Sequence[Event]) -> list[Event]:
    """Return the events that count once a client has cut at each `resume.after`.

    An attempt that begins anew, for want of a checkpoint in the book, leaves nothing of the ones before.
    """
    kept: list[Event] = []
    for event in events:
        attempt, _ = position(event)
        if event.type in ("resume", "start"):
            after = parse_id(event.data.get("after") or "0-0")
            kept = [one for one in kept if position(one) <= after or position(one)[0] == attempt]
        kept.append(event)
    return kept


def in_short(events: Sequence[Event]) -> str:
    """Return the ids and types of events, with the epoch where they have one and what a resume cuts."""

    def one(event: Event) -> str:
        about = [str(event.data[name]) for name in ("epoch", "batch", "after") if name in event.data]
        return f"{event.id} {event.type} {'/'.join(about)}"

    return ", ".join(one(event) for event in events)


class SimStack:
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

    # ---- what must hold

    def told(self, job_id: str, *, api: int = 0) -> list[Event]:
        """Return all events of a finished job with an id, as a new client is told them now."""
        with self.client(api) as client:
            events = list(follow(client, job_id, give_up_s=20, deadline=time.monotonic() + PATIENCE_S))
        assert events[-1].type == "end"
        return [event for event in events[:-1] if event.id is not None]

    def transitions(self, job_id: str) -> list[dict[str, Any]]:
        """Return the audit trail of a job, oldest first."""
        return list(self._items(f"/v1/jobs/{job_id}/transitions"))

    def attempts(self, job_id: str) -> list[dict[str, Any]]:
        """Return the attempts at a job."""
        return list(self._items(f"/v1/jobs/{job_id}/attempts"))

    def _items(self, path: str) -> Iterator[dict[str, Any]]:
        with self.client() as client:
            yield from sorted(
                client.request("GET", path).json()["items"], key=lambda item: item.get("seq", item["attempt"])
            )

    def assert_whole(self, job: Job, *, attempts: int | None = None, watchers: Sequence[Watcher] = ()) -> int:
        """See that a job succeeded as if nothing had happened; return its number of attempts.

        Every epoch once, in the book and as told; ids without a gap, to a new client and to these watchers;
        exactly one success; attempts that rise by one; the digest that stands for the weights as it must be.
        """
        with self.client() as client:
            ended = client.job(job.id)
            rows = client.metrics(job.id)
            config = parse_config(ended.as_json()["config"])
            (last,) = [found for found in client.artifacts(job.id) if found.name == "last.pt"]
            weights = client.request("GET", f"/v1/jobs/{job.id}/artifacts/{last.name}").json()
        assert ended.status == "succeeded", (ended.status, ended.error, self.transitions(job.id))
        assert attempts in (None, ended.attempt), (attempts, ended.attempt, self.transitions(job.id))
        assert [row["epoch"] for row in rows] == list(range(config.epochs))
        self.assert_trail(job.id)
        seen = self.told(job.id)
        self.assert_told(seen, job.id, epochs=config.epochs)
        for watcher in watchers:
            self.assert_told(watcher.join(), job.id, epochs=config.epochs)
        batches = next(event for event in seen if event.type == "batch").data["batches"]
        assert weights["digest"] == final_digest(config, batches)
        return ended.attempt

    def assert_whole_after(self, job: Job, *, watchers: Sequence[Watcher] = ()) -> int:
        """Wait until a job has ended, and see that it ended well; return its number of attempts."""
        self.await_state(job.id, FINAL)
        return self.assert_whole(job, watchers=watchers)

    def assert_trail(self, job_id: str) -> None:
        """See that a job's attempts rise by one, and that it ended once."""
        trail = self.transitions(job_id)
        claims = [item["attempt"] for item in trail if item["to"] == "running"]
        assert claims == list(range(1, len(claims) + 1)), trail
        assert [item["to"] for item in trail if item["to"] in FINAL] == [trail[-1]["to"]], trail
        outcomes = [item["outcome"] for item in self.attempts(job_id)]
        assert outcomes.count("succeeded") == (trail[-1]["to"] == "succeeded"), outcomes

    def assert_told(self, events: Sequence[Event], job_id: str, *, epochs: int) -> None:
        """See that events have rising ids without a gap, reach the end of the journal, and each epoch once.

        Of an attempt that was lost, the journal may hold lines that nobody was told; none that counts.
        """
        told = [position(event) for event in events]
        assert told, f"{job_id}: nothing was told"
        by_attempt: dict[int, list[int]] = {}
        for attempt, seq in told:
            by_attempt.setdefault(attempt, []).append(seq)
        assert told == sorted(told)
        for attempt, seqs in by_attempt.items():
            assert seqs == list(range(1, len(seqs) + 1)), f"{job_id}: attempt {attempt} has gaps or repeats"
            if (written := self.journal(job_id, attempt)) and attempt == max(by_attempt):
                assert len(seqs) == written[-1]["seq"]
        for event in events:
            if event.type == "resume" and event.data.get("after"):
                assert parse_id(event.data["after"]) in set(told)
        counted = [event.data["epoch"] for event in that_count(events) if event.type == "epoch"]
        assert counted == list(range(epochs)), (job_id, counted, in_short(events))

    def assert_all_whole(self, jobs: Sequence[Job]) -> list[int]:
        """See that all jobs ended well; return how many attempts each took."""
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(self.assert_whole, jobs))


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
