"""A probe: claimed like a job, measured on real data by a child, its figures in the book."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from api.domain.blobs import BlobStore
from api.domain.datasets import DatasetBook
from api.domain.probes import KIND_PROBE, ProbeBook
from api.domain.records import JobStatus, Task, TaskStatus
from tests.support.books import OWNER, Books
from tests.support.runs import SETTINGS
from tests.support.shapes import NAMES, TINY_MODEL, write_shapes
from tests.worker.conftest import MakeSlot
from worker import timing
from worker.tasks import train_next
from yolocore.data.files import scan_yolo_folder
from yolocore.spec.dataset import Manifest, ManifestImage
from yolocore.spec.events import PhaseChange

FAKE = """
import pathlib, sys
pathlib.Path(sys.argv[1], "result.json").write_text('{"batch_s": 2.0}')
"""


def publish(blobs: BlobStore, folder: Path) -> str:
    """Put a folder's pictures and its manifest where intake would; return the manifest's hash."""
    _, splits, _ = scan_yolo_folder(folder)
    images = []
    for split in ("train", "val"):
        for sample in splits[split]:
            data = sample.path.read_bytes()
            sha256 = hashlib.sha256(data).hexdigest()
            place = blobs.images_root / sha256[:2] / sha256
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
            size: dict[str, Any] = {"bytes": len(data), "width": sample.width, "height": sample.height}
            rows: Any = [(int(row[0]), *(min(1.0, float(v)) for v in row[1:])) for row in sample.rows]
            name = f"images/{split}/{sample.path.name}"
            images.append(ManifestImage(split=split, name=name, sha256=sha256, rows=rows, **size))  # type: ignore[arg-type]
    return blobs.put_bytes(Manifest.build(NAMES, images).canonical_json()).sha256


def asked(books: Books, manifest: str | None = None, **config: Any) -> Task:
    manifest = manifest or DatasetBook(books.store).get(books.dataset_id).manifest_hash
    payload = {"config": SETTINGS | config, "architecture": {"name": "tiny.yaml", "text": TINY_MODEL}}
    return ProbeBook(books.store).create(
        OWNER, books.dataset_id, "train.cpu", payload | {"manifest_hash": manifest}
    )


def test_a_probe_goes_before_jobs_and_leaves_figures(
    books: Books, make_slot: MakeSlot, tmp_path: Path
) -> None:
    """The real program, on real pictures: the whole way from the row to the figures in it."""
    job = books.submit(epochs=1)
    manifest = publish(books.blobs, write_shapes(tmp_path / "shapes"))
    probe = asked(books, manifest, epochs=50, batch=1)
    assert books.tasks.count_due() == {"train.cpu": 1}
    slot = make_slot(number=3)
    assert train_next(slot)
    told = books.tasks.get(probe.id)
    assert (told.status, told.kind, told.error) == (TaskStatus.SUCCEEDED, KIND_PROBE, None)
    result = told.result
    assert result is not None and result["batch"] == 1 and not result["simulated"]
    assert 0 < result["batch_s"] < 30 and result["num_batches"] == timing.WANTED
    assert result["images_per_s"] == pytest.approx(result["batch"] / result["batch_s"])
    assert result["peak_bytes"] > 50 << 20 and result["worker"] == slot.spec.id
    assert books.jobs.get(job.id).status is JobStatus.QUEUED
    assert train_next(slot) and books.jobs.get(job.id).status is JobStatus.SUCCEEDED


def test_what_cannot_be_measured_is_told(books: Books, make_slot: MakeSlot) -> None:
    slot = make_slot()
    slot.timing_command = (sys.executable, "-c", FAKE)
    gone, good = asked(books, "f" * 64), asked(books)
    assert train_next(slot) and train_next(slot)
    failed = books.tasks.get(gone.id)
    assert failed.status in (TaskStatus.FAILED, TaskStatus.QUEUED) and failed.error is not None
    assert books.tasks.get(good.id).result == {"batch_s": 2.0, "worker": slot.spec.id}
    waiting = asked(books)
    ProbeBook(books.store).cancel(waiting.id, OWNER)
    assert books.tasks.get(waiting.id).status is TaskStatus.CANCELLED


def test_only_batches_of_training_count(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, now = timing.Stopwatch(), [100.0]
    monkeypatch.setattr(timing.time, "monotonic", lambda: now[0])

    def batches(count: int, seconds: float) -> list[object]:
        wishes = []
        for _ in range(count):
            wishes.append(watch.poll())
            now[0] += seconds
        return wishes

    batches(3, 9.0)
    watch.emit(PhaseChange(phase="training"))
    assert batches(5, 0.5) == [None] * 5
    watch.emit(PhaseChange(phase="validating"))
    batches(4, 7.0)
    watch.emit(PhaseChange(phase="training"))
    assert watch.durations_s == [0.5, 0.5]
    # By now it has taken too long.
    assert batches(2, 0.5) == ["cancel", "cancel"]


def test_a_wrong_run_is_a_verdict(tmp_path: Path) -> None:
    order = {"config": {"epochs": 0}, "simulated": True}
    (tmp_path / "task.json").write_text(json.dumps(order))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(timing, "hold_lifeline", lambda: None)
        assert timing.main([str(tmp_path)]) == timing.DONE
        assert json.loads((tmp_path / "result.json").read_text())["code"] == "CONFIG_INVALID"
        (tmp_path / "task.json").write_text(json.dumps(order | {"config": {"batch": 4}}))
        assert timing.main([str(tmp_path)]) == timing.DONE
    told = json.loads((tmp_path / "result.json").read_text())
    assert (told["simulated"], told["batch"], told["batch_s"]) == (True, 4, timing.SIMULATED_S)
