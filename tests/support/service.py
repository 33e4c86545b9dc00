"""The API as it is served, over a migrated book in a temporary folder; a test may play the worker to it."""

from __future__ import annotations

import atexit
import contextlib
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import event

from api.domain.architectures import ArchitectureBook
from api.domain.blobs import BlobStore
from api.domain.datasets import DatasetBook
from api.domain.jobs import JobBook
from api.domain.records import Claim, DatasetStatus, IngestResult
from api.domain.settings import Settings
from api.domain.store import Store, migrate, open_store
from api.domain.tasks import TaskBook
from api.domain.tokens import TokenBook
from api.domain.weights import WeightsBook
from api.jobs.service import JobService
from api.server import make_server
from api.weights.service import WeightsService
from tests.support.books import short_settings
from tests.support.stores import own_database
from yolocore.spec.zoo import zoo_text

ZIP_HEAD = b"PK\x03\x04" + b"\0" * 60
NOWHERE = "unix:///nowhere/valkey.sock"


@dataclass
class World:
    """A book beside the API, so that a test can play the worker, and a caller's credentials."""

    settings: Settings
    store: Store
    token: str

    @property
    def headers(self) -> dict[str, str]:
        """Credentials of a user who may do everything."""
        return {"Authorization": f"Bearer {self.token}"}

    @property
    def jobs(self) -> JobBook:
        """The book of jobs."""
        return JobBook(self.store, self.settings)

    def other_user(self) -> dict[str, str]:
        """Return the credentials of someone else, who is no administrator."""
        new = TokenBook(self.store).create("someone else", scopes=("read", "write"))
        return {"Authorization": f"Bearer {new.secret}"}

    def ingest(self, dataset_id: str, *, classes: tuple[str, ...] = ("a", "b")) -> None:
        """Let the next ingest, which must be this dataset's, find a good dataset."""
        tasks = TaskBook(self.store, self.settings)
        task = tasks.claim("ingest", "test")
        assert task is not None
        assert task.subject_id == dataset_id
        ready = IngestResult(
            DatasetStatus.READY,
            report_sha256="1" * 64,
            manifest_hash="2" * 64,
            statistics={"images": 3},
            classes=classes,
            splits={"train": 2, "val": 1},
            num_boxes=5,
        )
        tasks.finish_ingest(task.id, task.attempt, ready)

    def condemn(self, dataset_id: str, report_sha256: str) -> None:
        """Let the next ingest, which must be this dataset's, find it invalid."""
        tasks = TaskBook(self.store, self.settings)
        task = tasks.claim("ingest", "test")
        assert task is not None
        assert task.subject_id == dataset_id
        result = IngestResult(DatasetStatus.INVALID, report_sha256=report_sha256, num_errors=1)
        tasks.finish_ingest(task.id, task.attempt, result)

    def claim(self) -> Claim:
        """Claim the next training job as a worker would."""
        claim = self.jobs.claim(self.settings.queue, "worker-1", host="here")
        assert claim is not None
        return claim

    def job_service(self) -> JobService:
        """Return what the API has, over this world's own connection to the book."""
        datasets, architectures = DatasetBook(self.store), ArchitectureBook(self.store)
        weights = WeightsService(WeightsBook(self.store), BlobStore(self.settings.blobs_dir))
        return JobService(self.jobs, datasets, architectures, weights, self.settings)

    def num_queries(self, call: Callable[[], object]) -> int:
        """Count the questions that a call asks this world's own connection to the book."""
        asked: list[str] = []

        def note(*arguments: Any) -> None:
            asked.append(arguments[2])

        event.listen(self.store.engine, "before_cursor_execute", note)
        try:
            call()
        finally:
            event.remove(self.store.engine, "before_cursor_execute", note)
        return sum(statement.startswith("SELECT") for statement in asked)

    def num_datasets(self) -> int:
        """Count the datasets of everyone."""
        return len(DatasetBook(self.store).list().items)

    def files(self) -> list[Path]:
        """Return every file among the blobs, finished or not."""
        return [path for path in self.settings.blobs_dir.rglob("*") if path.is_file()]


@lru_cache(maxsize=1)
def _migrated_book() -> Path:
    """Migrate a book once per test process; every world begins with a copy of it."""
    folder = Path(tempfile.mkdtemp(prefix="ts-book-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    migrate(f"sqlite:///{folder / 'book.sqlite3'}")
    return folder / "book.sqlite3"


@contextlib.contextmanager
def new_world(
    folder: Path, redis_url: str = NOWHERE, *, book_in: Path | None = None, **settings: Any
) -> Iterator[World]:
    """Migrate a book in a folder, PostgreSQL's in `book_in` or with its server, and make a token."""
    with own_database(book_in) as place:
        made = short_settings(folder / "data", redis_url, **place, **settings)
        made.data_dir.mkdir(parents=True)
        if not place:
            shutil.copyfile(_migrated_book(), made.data_dir / "book.sqlite3")
        store = open_store(made)
        try:
            yield World(made, store, TokenBook(store).create("local", label="test").secret)
        finally:
            store.close()


@contextlib.contextmanager
def on_port(world: World) -> Iterator[str]:
    """Run the real server in a thread; yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = make_server(world.settings, with_loops=False)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            deadline = time.monotonic() + 15
            while not server.started:
                assert thread.is_alive()
                assert time.monotonic() < deadline
                time.sleep(0.01)
            yield address
        finally:
            server.should_exit = True
            thread.join(15)
            assert not thread.is_alive(), "the server did not stop"


@contextlib.contextmanager
def client_of(world: World) -> Iterator[httpx.Client]:
    """Run the real server and yield a client with the world's token."""
    with on_port(world) as address, httpx.Client(base_url=address, headers=world.headers) as client:
        yield client


def a_dataset(world: World, client: httpx.Client, name: str = "ds", *, ready: bool = True) -> str:
    """Upload something that looks like an archive, and let it be found good; return its id."""
    answer = client.put("/v1/datasets", params={"name": name}, content=ZIP_HEAD + name.encode())
    assert answer.status_code == 202, answer.text
    dataset_id = str(answer.json()["id"])
    if ready:
        world.ingest(dataset_id)
    return dataset_id


def an_architecture(client: httpx.Client, name: str = "yolov5n", text: str | None = None) -> str:
    """Keep a model YAML; return its id."""
    answer = client.post("/v1/architectures", params={"name": name}, content=text or model_text())
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def a_job(world: World, client: httpx.Client, **more: Any) -> dict[str, Any]:
    """Submit a job on a new dataset and architecture; return it."""
    body = {"dataset": a_dataset(world, client), "architecture": an_architecture(client), **more}
    return submitted(client, body)


def submitted(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    """Submit a job; return it."""
    answer = client.post("/v1/jobs", json=body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def model_text(num_classes: int = 80) -> str:
    """Return the smallest public model file, for this many classes."""
    return zoo_text("yolov5n").replace("nc: 80", f"nc: {num_classes}")
