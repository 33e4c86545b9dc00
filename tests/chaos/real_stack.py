"""The whole service in a folder of its own, started as a user starts it, and ways to look into it.

Faults are made by signals to its processes and commands to its Valkey; what came of them is read over HTTP,
or from the files that outlive the service.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import redis

from api.client import Client, Event, Job
from api.client.follow import follow
from api.stack.broker import socket_path
from tests.support.members import living, until
from tests.support.shared import ROOT

__all__ = ["Follower", "RealStack", "interrupt", "living", "position", "until", "without_repeats"]

# Short, but a claim must outlive the worst pause of a loaded machine with two cores.
PERIODS = {
    "HEARTBEAT_S": "0.4",
    "LEASE_S": "3",
    "REAPER_TICK_S": "0.3",
    "REAPER_GAP_S": "2.5",
    "DISPATCHER_TICK_S": "0.2",
    "SINGLETON_S": "3",
    "RETRY_BACKOFF_S": "0.2",
    "CHECKPOINT_EVERY_S": "1",
    "STOP_GRACE_S": "10",
    "REDIS_TIMEOUT_S": "2",
    "TRAIN_THREADS": "1",
    "LOADER_THREADS": "1",
}
LEASE_S = float(PERIODS["LEASE_S"])
_PATIENCE_S = 60.0


class RealStack:
    """`trainshed up` on a free port; started when it is first needed, and again after it was stopped."""

    def __init__(self, folder: Path, *flags: str, **environment: str) -> None:
        """Take the data folder, flags of `trainshed up`, and variables without their prefix."""
        self.folder = folder
        self._flags = flags
        self._environment = {f"TRAINSHED_{name}": value for name, value in {**PERIODS, **environment}.items()}
        self._process: subprocess.Popen[bytes] | None = None
        self._num_starts = 0

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The stack's own process, the one a terminal or an init system talks to."""
        assert self._process is not None
        return self._process

    @property
    def output(self) -> str:
        """What the present start printed."""
        return self._output_path.read_text(encoding="utf-8")

    @property
    def _output_path(self) -> Path:
        return self.folder.parent / f"up-{self._num_starts}.out"

    def ensure_up(self) -> float:
        """Start the stack unless it runs; return the seconds that took."""
        if self._process is not None and self._process.poll() is None:
            return 0.0
        self._num_starts += 1
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TRAINSHED_")}
        command = [sys.executable, "-m", "api.cli.main", "--data", str(self.folder), "up", "--port", "0"]
        command += self._flags
        with self._output_path.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**kept, **self._environment, "CUDA_VISIBLE_DEVICES": ""},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        taken = until(
            lambda: "open http" in self.output or self.process.poll() is not None, "the stack's start"
        )
        assert self.process.poll() is None, self.output
        return taken

    def client(self) -> Client:
        """Open a client as the command line does, by what the stack left in its folder."""
        found = json.loads((self.folder / "run" / "connection.json").read_text(encoding="utf-8"))
        return Client(found["url"], found["token"])

    def family(self) -> list[psutil.Process]:
        """Return every process below the stack."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def one(self, *words: str) -> psutil.Process:
        """Return the process below the stack whose command line has all these words."""
        (only,) = self.all(*words)
        return only

    def all(self, *words: str) -> list[psutil.Process]:
        """Return the processes below the stack whose command line has all these words."""
        found = []
        for process in living(self.family()):
            with contextlib.suppress(psutil.NoSuchProcess):
                line = " ".join(process.cmdline())
                if all(word in line for word in words):
                    found.append(process)
        return found

    def trainer(self) -> psutil.Process:
        """Return the process that trains, not one that stands by, which works in no attempt's folder."""
        (only,) = [one for one in self.all("-m worker.trainer") if "attempts" in Path(one.cwd()).parts]
        return only

    def train_worker(self) -> psutil.Process:
        """Return the process that watches over it."""
        return self.one("-m worker.app", "train.cpu")

    def redis(self) -> redis.Redis:
        """Open a connection to the stack's Valkey."""
        return redis.Redis(unix_socket_path=str(socket_path(self.folder / "run")), socket_timeout=5)

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Read the book itself."""
        with contextlib.closing(sqlite3.connect(self.folder / "book.sqlite3", timeout=15)) as book:
            return book.execute(sql, values).fetchall()

    def attempt_folder(self, job_id: str, attempt: int) -> Path:
        """Return where an attempt works."""
        return self.folder / "jobs" / job_id / "attempts" / str(attempt)

    def journal(self, job_id: str, attempt: int) -> list[dict[str, Any]]:
        """Return what an attempt told, whole lines only."""
        try:
            data = (self.attempt_folder(job_id, attempt) / "events.jsonl").read_bytes()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in data.splitlines(keepends=True) if line.endswith(b"\n")]

    def end(self) -> None:
        """Kill whatever is left."""
        if self._process is None:
            return
        if self._process.poll() is None:
            family = self.family()
            self._process.kill()
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        self._process.wait()


class Follower:
    """A client that follows a job from its first event in a thread, and remembers all it was told."""

    def __init__(self, stack: RealStack, job: Job) -> None:
        self.job_id = job.id
        self.events: list[Event] = []
        self.error: Exception | None = None
        self._client = stack.client()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with self._client:
                for event in follow(self._client, self.job_id, give_up_s=20):
                    self.events.append(event)
        except Exception as error:  # noqa: BLE001 - handed to the test, which waits for it
            self.error = error

    def join(self) -> list[Event]:
        """Wait for the end of the job and return the events of the run, those with an id, without the end."""
        self._thread.join(_PATIENCE_S)
        assert not self._thread.is_alive(), "the follower got no end"
        assert self.error is None, self.error
        assert self.events[-1].type == "end"
        return [event for event in self.events[:-1] if event.id is not None]


def position(event: Event) -> tuple[int, int]:
    """Return (attempt, seq) of an event of a run."""
    assert event.id is not None
    attempt, _, seq = event.id.partition("-")
    return int(attempt), int(seq)


def without_repeats(events: list[Event]) -> list[Event]:
    """Return the events that count once a client has cut at each `resume.after`."""
    kept: list[Event] = []
    for event in events:
        if event.type == "resume":
            attempt, _, seq = (event.data.get("after") or "0-0").partition("-")
            kept = [earlier for earlier in kept if position(earlier) <= (int(attempt), int(seq))]
        kept.append(event)
    return kept


def interrupt(process: subprocess.Popen[bytes]) -> None:
    """Press Ctrl-C; members of the stack have sessions of their own and hear nothing of it."""
    process.send_signal(signal.SIGINT)
