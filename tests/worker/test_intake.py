"""An ingest ends in a dataset that is all there, a report, or an error that is not blamed on the data."""

import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from api.domain.contents import ContentBook
from api.domain.records import DatasetStatus, TaskStatus
from tests.support.books import OWNER, Books, until
from tests.worker.conftest import MakeSlot
from worker.tasks import WorkerSlot, ingest_next

# An ingest child in a few lines: reads its task, leaves what the real one leaves.
PRELUDE = """
import hashlib, json, os, pathlib, sys, time
folder = pathlib.Path(sys.argv[-1])
task = json.loads((folder / "task.json").read_text())
data = pathlib.Path(task["archive"]).read_bytes()
def image(content, name=None):
    sha = name or hashlib.sha256(content).hexdigest()
    path = folder / "images" / sha[:2] / sha
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return {"split": "train", "name": sha, "sha256": sha, "bytes": len(content), "width": 1, "height": 1,
            "rows": []}
def leave(status, images, **more):
    made = {"images": images, "names": ["a"], "v": 1}
    manifest = json.dumps(made, separators=(",", ":")).encode()
    if status == "ready":
        (folder / "manifest.json").write_bytes(manifest)
        (folder / "statistics.json").write_text('{"boxes": 7}')
    (folder / "report.json").write_text(json.dumps({"v": 1, "status": status, "problems": []}))
    result = {"v": 1, "status": status, "errors": 0, "warnings": 2, "num_classes": 1, "classes": ["a"],
              "splits": {"train": len(images)}, "num_boxes": 7,
              "manifest_hash": hashlib.sha256(manifest).hexdigest() if status == "ready" else None}
    (folder / "result.json").write_text(json.dumps({**result, **more}))
"""
READY = 'leave("ready", [image(b"one"), image(b"two"), image(data)])'
INVALID = 'leave("invalid", [], errors=3, num_boxes=0, classes=[]); sys.exit(65)'
FORGED = 'leave("ready", [image(b"poison", name="a" * 64)])'
NO_MANIFEST = READY + '; (folder / "manifest.json").write_text("not one")'
CRASH = 'print("last words", flush=True); os.kill(os.getpid(), 9)'
SLOW = "(folder / 'ready').touch(); time.sleep(60)"


def child(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", PRELUDE + code)


@contextmanager
def running(slot: WorkerSlot) -> Iterator[None]:
    thread = threading.Thread(target=ingest_next, args=(slot,))
    thread.start()
    try:
        yield
    finally:
        thread.join(20)
        assert not thread.is_alive()


def test_nothing_to_do(make_slot: MakeSlot) -> None:
    assert ingest_next(make_slot()) is False


def test_a_dataset_becomes_ready_with_all_its_files(books: Books, make_slot: MakeSlot) -> None:
    dataset_id = books.upload("ds", b"archive")
    assert ingest_next(make_slot(ingest_command=child(READY))) is True
    dataset = books.datasets.get(dataset_id)
    assert dataset.status is DatasetStatus.READY
    assert dataset.manifest_hash is not None and dataset.report_sha256 is not None
    assert (dataset.classes, dataset.splits, dataset.num_boxes) == (("a",), {"train": 3}, 7)
    assert (dataset.num_errors, dataset.num_warnings, dataset.statistics) == (0, 2, {"boxes": 7})
    manifest = json.loads(books.blobs.read_bytes(dataset.manifest_hash))
    contents = {books.blobs.read_bytes(image["sha256"]) for image in manifest["images"]}
    assert contents == {b"one", b"two", b"archive"}
    assert json.loads(books.blobs.read_bytes(dataset.report_sha256))["status"] == "ready"
    assert not list(books.settings.tasks_dir.iterdir())


def test_bad_data_is_a_verdict(books: Books, make_slot: MakeSlot) -> None:
    dataset_id = books.upload("ds", b"archive")
    ingest_next(make_slot(ingest_command=child(INVALID)))
    dataset = books.datasets.get(dataset_id)
    assert (dataset.status, dataset.num_errors, dataset.error) == (DatasetStatus.INVALID, 3, None)
    assert dataset.report_sha256 is not None and books.blobs.has(dataset.report_sha256)
    (task,) = books.tasks.for_subject(dataset_id)
    assert task.status is TaskStatus.SUCCEEDED


@pytest.mark.parametrize("code", [CRASH, FORGED, "sys.exit(0)"], ids=["crash", "forged", "silent"])
def test_three_failures_without_a_verdict_are_the_services_fault(
    books: Books, make_slot: MakeSlot, code: str
) -> None:
    dataset_id = books.upload("ds", b"archive")
    slot = make_slot(ingest_command=child(code))
    for failures in (1, 2, 3):
        until(lambda: ingest_next(slot))
        (task,) = books.tasks.for_subject(dataset_id)
        assert task.failures == failures
    dataset = books.datasets.get(dataset_id)
    assert dataset.status is DatasetStatus.INVALID
    assert dataset.error is not None and dataset.error["code"] == "SERVICE_ERROR"
    assert task.status is TaskStatus.FAILED
    assert not books.blobs.has("a" * 64)


DEATHS = {
    "killed": (CRASH, "KILLED"),
    "segfault": ("os.kill(os.getpid(), 11)", "SEGFAULT"),
    "non-zero exit": ("sys.exit(3)", "CRASHED"),
    "memory": ("sys.exit(71)", "OUT_OF_MEMORY"),
    "disk": ("sys.exit(74)", "DISK_FULL"),
}


@pytest.mark.parametrize(("code", "expected"), DEATHS.values(), ids=list(DEATHS))
def test_each_death_has_its_code(books: Books, make_slot: MakeSlot, code: str, expected: str) -> None:
    dataset_id = books.upload("ds", b"archive")
    ingest_next(make_slot(ingest_command=child(code)))
    (task,) = books.tasks.for_subject(dataset_id)
    assert task.error is not None and task.error["code"] == expected


def test_a_kill_for_memory_is_told_by_the_kernel_s_counter(
    books: Books, make_slot: MakeSlot, tmp_path: Path
) -> None:
    counter = tmp_path / "memory.events"
    counter.write_text("oom_kill 0\n")
    dataset_id = books.upload("ds", b"archive")
    slot = make_slot(ingest_command=child("time.sleep(0.5); "
        f"pathlib.Path({str(counter)!r}).write_text('oom_kill 1'); os.kill(os.getpid(), 9)"))  # fmt: skip
    slot.oom_counter = lambda pid: counter
    ingest_next(slot)
    (task,) = books.tasks.for_subject(dataset_id)
    assert task.error is not None and task.error["code"] == "OUT_OF_MEMORY"


def test_a_content_under_a_false_name_harms_nobody(books: Books, make_slot: MakeSlot) -> None:
    books.upload("ds", b"archive")
    ingest_next(make_slot(ingest_command=child(FORGED)))
    stored = [path for path in books.blobs.images_root.rglob("*") if path.is_file()]
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() == path.name for path in stored)


def test_a_manifest_that_is_none_makes_no_dataset(books: Books, make_slot: MakeSlot) -> None:
    dataset_id = books.upload("ds", b"archive")
    ingest_next(make_slot(ingest_command=child(NO_MANIFEST)))
    (task,) = books.tasks.for_subject(dataset_id)
    assert task.error is not None and "is none" in task.error["message"]
    assert books.datasets.get(dataset_id).manifest_hash is None


def test_a_deleted_dataset_ends_its_ingest(books: Books, make_slot: MakeSlot) -> None:
    dataset_id = books.upload("ds", b"archive")
    with running(make_slot(ingest_command=child(SLOW))):
        until(lambda: _started(books.settings.tasks_dir))
        books.datasets.delete(dataset_id)
    (task,) = books.tasks.for_subject(dataset_id)
    assert task.status is TaskStatus.CANCELLED


def test_draining_gives_an_ingest_back(books: Books, make_slot: MakeSlot) -> None:
    dataset_id = books.upload("ds", b"archive")
    slot = make_slot(ingest_command=child(SLOW))
    with running(slot):
        until(lambda: _started(books.settings.tasks_dir))
        slot.drain.set()
    (task,) = books.tasks.for_subject(dataset_id)
    assert (task.status, task.failures, task.preemptions) == (TaskStatus.QUEUED, 0, 1)


def test_an_ingest_that_takes_too_long(books: Books, make_slot: MakeSlot) -> None:
    dataset_id = books.upload("ds", b"archive")
    slot = make_slot(ingest_command=child(SLOW))
    slot.settings = slot.settings.model_copy(update={"ingest_timeout_s": 0.3})
    ingest_next(slot)
    (task,) = books.tasks.for_subject(dataset_id)
    assert (task.status, task.failures) == (TaskStatus.QUEUED, 1)
    assert task.error is not None and task.error["code"] == "STALLED"


SHOWN = """
for name in ("thumbnails.zip", "report.html"):
    (folder / name).write_text(name)
"""
BOTH = 'files={"thumbnails": "thumbnails.zip", "page": "report.html", "other": "report.json"}'


def test_what_is_to_be_looked_at_is_kept_with_the_dataset(books: Books, make_slot: MakeSlot) -> None:
    dataset_id = books.upload("ds", b"archive")
    ingest_next(make_slot(ingest_command=child(f'{SHOWN}\nleave("ready", [image(b"one")], {BOTH})')))
    files = books.datasets.get(dataset_id).files
    assert files is not None and set(files) == {"thumbnails", "page"}
    assert books.blobs.read_bytes(files["page"]) == b"report.html"
    assert ContentBook(books.store).unnamed(list(files.values())) == []
    books.datasets.delete(dataset_id)
    assert set(ContentBook(books.store).unnamed(list(files.values()))) == set(files.values())


def test_a_dataset_that_is_only_looked_at(books: Books, make_slot: MakeSlot) -> None:
    options = {"inspect": True, "imgsz": 320}
    code = f"""
{SHOWN}
assert task["options"] == {options!r}
leave("ready", [image(b"one")], inspected=True, files={{"thumbnails": None, "page": "report.html"}})
"""
    archive = books.blobs.put_bytes(b"archive")
    made = books.datasets.create(OWNER, "ds", archive, file_name="ds.zip", options=options)
    ingest_next(make_slot(ingest_command=child(code)))
    dataset = books.datasets.get(made.dataset.id)
    assert (dataset.status, dataset.manifest_hash) == (DatasetStatus.INSPECTED, None)
    assert (dataset.statistics, set(dataset.files or {})) == ({"boxes": 7}, {"page"})
    assert not books.blobs.has(hashlib.sha256(b"one").hexdigest())
    books.datasets.confirm(dataset.id, OWNER, {"inspect": False})
    ingest_next(make_slot(ingest_command=child('assert not task["options"]["inspect"]\n' + READY)))
    assert books.datasets.get(made.dataset.id).status is DatasetStatus.READY


@pytest.mark.parametrize("name", ["../task.json", "missing.html", "images", "/etc/passwd"])
def test_a_file_that_is_none_is_not_published(books: Books, make_slot: MakeSlot, name: str) -> None:
    dataset_id = books.upload("ds", b"archive")
    code = f'leave("ready", [image(b"one")], files={{"page": {name!r}}})'
    ingest_next(make_slot(ingest_command=child(code)))
    (task,) = books.tasks.for_subject(dataset_id)
    assert task.failures == 1
    assert books.datasets.get(dataset_id).files is None


def test_another_attempt_s_folder_is_left_alone(books: Books, make_slot: MakeSlot) -> None:
    """A claim that was taken back while its worker only slept: both attempts are at work for a while."""
    dataset_id = books.upload("ds", b"archive")
    (task,) = books.tasks.for_subject(dataset_id)
    other = books.settings.tasks_dir / task.id / "2"
    other.mkdir(parents=True)
    (other / "task.json").write_text("{}")
    ingest_next(make_slot(ingest_command=child(READY)))
    assert [path.name for path in (books.settings.tasks_dir / task.id).iterdir()] == ["2"]
    assert (other / "task.json").is_file()


def _started(folder: Path) -> bool:
    return folder.is_dir() and any(folder.rglob("ready"))
