"""Rows follow the journal one event at a time, and never look complete when they are not."""

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from api.domain.blobs import BlobStore
from api.domain.errors import Fenced, StoreUnavailable
from api.domain.records import Artifact, EpochRow, Pointer
from worker.attempt import AttemptFolder
from worker.journal import Journal
from worker.progress import Progress
from worker.rows import Owner, RowShipper


class Book:
    """Takes what a run book takes; the next calls raise what `troubles` holds."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.troubles: list[Exception] = []

    def _take(self, name: str, what: Any) -> None:
        if self.troubles:
            raise self.troubles.pop(0)
        self.calls.append((name, what))

    def record_epochs(self, job_id: str, attempt: int, epochs: Sequence[EpochRow]) -> None:
        self._take("epochs", [row.epoch for row in epochs])

    def move_pointer(self, job_id: str, attempt: int, pointer: Pointer, epochs: Sequence[EpochRow]) -> None:
        self._take("pointer", (pointer.epoch, pointer.after, [row.epoch for row in epochs]))

    def add_artifacts(self, job_id: str, attempt: int, artifacts: Sequence[Artifact]) -> None:
        self._take("artifacts", [artifact.name for artifact in artifacts])


def epoch(number: int) -> dict[str, Any]:
    return {"type": "epoch", "epoch": number, "epochs": 9, "best": True, "fitness": 0.1}


def checkpoint(number: int) -> dict[str, Any]:
    path = f"checkpoints/e{number:04d}-b000000.ckpt"
    return {"type": "checkpoint", "epoch": number, "batch": 0, "path": path, "sha256": "0" * 64,
            "size_bytes": 1}  # fmt: skip


def artifact(name: str) -> dict[str, Any]:
    return {"type": "artifact", "name": name, "path": name, "kind": "plot", "media_type": "image/png"}


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = AttemptFolder(folder / "attempts" / "2")
        self.folder.path.mkdir(parents=True)
        self.book = Book()
        self.milestones = threading.Semaphore(0)
        self.blobs = BlobStore(folder / "blobs")

    def ship(self, *events: dict[str, Any]) -> RowShipper:
        lines = [json.dumps({"v": 1, "seq": n, "ts": 0.0, **e}) + "\n" for n, e in enumerate(events, 1)]
        self.folder.journal.write_text("".join(lines))
        shipper = RowShipper(
            Journal(self.folder.journal),
            self.folder,
            Owner("job_1", 2),
            self.book,
            self.blobs,
            progress=Progress(),
            on_milestone=self.milestones.release,
            poll_s=0.01,
            backoff_s=0.01,
        )
        shipper.start()
        shipper.finish()
        return shipper


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_epochs_travel_with_the_checkpoint_that_follows(bench: Bench) -> None:
    shipper = bench.ship(epoch(0), checkpoint(1), epoch(1), epoch(2))
    assert bench.book.calls == [("pointer", (1, "2-2", [0])), ("epochs", [1, 2])]
    assert (shipper.problem, shipper.last_event_id) == (None, "2-4")
    assert bench.milestones.acquire(blocking=False)


def test_trouble_repeats_one_write_and_moves_no_pointer_back(bench: Bench) -> None:
    away = StoreUnavailable("away")
    (bench.folder.path / "a.png").write_bytes(b"x")
    bench.book.troubles = [away, away]
    shipper = bench.ship(epoch(0), checkpoint(1), checkpoint(2), artifact("a.png"), epoch(1))
    assert [name for name, _ in bench.book.calls] == ["pointer", "pointer", "artifacts", "epochs"]
    assert [what[:2] for name, what in bench.book.calls if name == "pointer"] == [(1, "2-2"), (2, "2-3")]
    assert shipper.problem is None


def test_an_artifact_that_is_gone_is_passed_over(bench: Bench) -> None:
    assert bench.ship(artifact("gone.png"), epoch(0)).problem is None
    assert bench.book.calls == [("epochs", [0])]


def test_the_fence_ends_it(bench: Bench) -> None:
    bench.book.troubles = [Fenced("gone")]
    shipper = bench.ship(epoch(0))
    assert shipper.fenced.is_set()
    assert shipper.problem is None


def test_a_damaged_journal_is_a_problem(bench: Bench) -> None:
    shipper = bench.ship(epoch(0), {"type": 7})
    assert shipper.problem is not None and "line 2" in str(shipper.problem)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_of_ours_never_looks_complete(bench: Bench) -> None:
    shipper = bench.ship({"type": "epoch"})
    assert shipper.problem is not None and not shipper.fenced.is_set()
