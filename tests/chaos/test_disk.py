"""Full disks under a service that trains: each part of it alone, then all at once.

A small file system is mounted where the part keeps its files, filled while a job runs, and emptied again.
What must hold: the failure has a name, nothing torn is taken for whole, and when there is space again the job
ends as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from api.client import Job
from tests.chaos.sim_stack import SimStack
from tests.chaos.watching import Watcher
from tests.support.figures import record
from tests.support.members import until
from tests.support.service import ZIP_HEAD
from tests.support.small_disk import MIB, SmallDisk, small_disk

HOLD = {"batches": 10, "batch_s": 0.01, "hold": (1, 5)}
GO_ON = {"batches": 10, "batch_s": 0.01}
PAGE_BYTES = 4096
FULL_CODES = {"DISK_FULL", "STORAGE_ERROR"}


@contextlib.contextmanager
def stack_on(disk_at: str, tmp_path: Path, **settings: Any) -> Iterator[tuple[SimStack, SmallDisk]]:
    """Start a stack of which one folder, the data folder itself for `.`, is a small disk."""
    folder = tmp_path / "data"
    with small_disk(folder / disk_at) as disk, SimStack(folder, workers=1, **settings) as stack:
        yield stack, disk


def held_job(stack: SimStack, **pace: Any) -> Job:
    """Submit a job and wait until it stands still in the middle of its second epoch."""
    stack.set_pace(**HOLD | pace)
    (job,) = stack.submit(epochs=3)
    stack.await_place(job.id, epoch=1, batch=4)
    return job


def halves(stack: SimStack) -> list[str]:
    """Return files of results that are not whole: on their way, or of another content than their name."""
    attempts = "jobs/*/attempts/*/{{}}/*.part"
    found = [
        str(path)
        for pattern in (
            "blobs/tmp/*",
            *(attempts.format(name) for name in ("", "checkpoints/", "artifacts/")),
        )
        for path in stack.folder.glob(pattern)
    ]
    for path in stack.settings.images_root.rglob("*"):
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() != path.name:
            found.append(str(path))
    return found


def codes(stack: SimStack, job: Job) -> list[str]:
    """Return the code of every attempt that failed."""
    return [str(item["code"]) for item in stack.attempts(job.id) if item["code"] is not None]


def until_it_failed(stack: SimStack, job: Job) -> float:
    return until(lambda: codes(stack, job), "an attempt to end for the full disk", 30)


def until_whole(stack: SimStack, job: Job, watcher: Watcher) -> float:
    began = time.monotonic()
    stack.await_state(job.id, "succeeded")
    taken = time.monotonic() - began
    stack.assert_whole(job, watchers=[watcher])
    assert halves(stack) == []
    return taken


def test_a_checkpoint_that_finds_no_room(tmp_path: Path) -> None:
    """The attempt ends with a name, its journal where the disk left it; the next goes on."""
    with stack_on("jobs", tmp_path) as (stack, disk):
        job = held_job(stack)
        watcher = Watcher(stack, job.id)
        disk.fill()
        stack.set_pace(**GO_ON)
        noticed = until_it_failed(stack, job)
        disk.empty()
        recovered = until_whole(stack, job, watcher)
        assert set(codes(stack, job)) == {"DISK_FULL"}
        record("full disk, checkpoint: named after", noticed, "s", 5)
        record("full disk, checkpoint: job done after space returned", recovered, "s")


def test_a_journal_that_finds_no_room_for_a_while(tmp_path: Path) -> None:
    """Its lines wait in the run, which goes on; once there is room again nothing lacks."""
    with stack_on("jobs", tmp_path, checkpoint_every_s=60.0) as (stack, disk):
        job = held_job(stack, batches=600, batch_s=0.001)
        watcher = Watcher(stack, job.id)
        disk.fill()
        journal = stack.attempt_folder(job.id, 1) / "events.jsonl"
        room = -journal.stat().st_size % PAGE_BYTES
        end = journal.stat().st_size + room
        stack.set_pace(batches=600, batch_s=0.01)
        until(lambda: journal.stat().st_size == end, "the last page of the journal to be full", 20)
        time.sleep(0.5)
        assert journal.stat().st_size == end
        assert stack.state(job.id) == ("running", 1)
        disk.empty()
        stack.set_pace(batches=600, batch_s=0.0005)
        recovered = until_whole(stack, job, watcher)
        assert stack.assert_whole(job, attempts=1) == 1
        assert journal.stat().st_size > end
        record("full disk, journal: job done after space returned", recovered, "s")


def test_a_log_that_finds_no_room(tmp_path: Path) -> None:
    """What is said to people is lost, with no other harm than that: the failure keeps its name."""
    talk = {"logs": 40, "log_bytes": 2000}
    with stack_on("jobs", tmp_path) as (stack, disk):
        job = held_job(stack, **talk)
        disk.fill()
        stack.set_pace(**GO_ON, **talk)
        until_it_failed(stack, job)
        disk.empty()
        stack.await_state(job.id, "succeeded")
        stack.assert_whole(job)
        assert set(codes(stack, job)) == {"DISK_FULL"}


def test_the_disk_of_the_blobs(tmp_path: Path) -> None:
    """Artifacts cannot be stored, uploads are refused; the run waits or is done again, and ends whole."""
    with stack_on("blobs", tmp_path) as (stack, disk):
        job = held_job(stack)
        watcher = Watcher(stack, job.id)
        disk.fill()
        refused = upload(stack, 2 * MIB)
        assert (refused.status_code, refused.json()["code"]) == (507, "STORAGE_FULL")
        stack.set_pace(**GO_ON)
        noticed = until_it_failed(stack, job)
        disk.empty()
        recovered = until_whole(stack, job, watcher)
        assert set(codes(stack, job)) <= FULL_CODES
        assert upload(stack, 2 * MIB).status_code == 202
        assert halves(stack) == []
        record("full disk, artifacts: named after", noticed, "s", 10)
        record("full disk, artifacts: job done after space returned", recovered, "s")


def test_the_disk_of_the_book(tmp_path: Path) -> None:
    """A book that takes nothing is a book that is away: training goes on, and nobody is taken for dead."""
    disk_at = tmp_path / "book"
    with small_disk(disk_at) as disk:
        url = f"sqlite:///{disk_at / 'book.sqlite3'}"
        with SimStack(tmp_path / "data", workers=1, database_url=url) as stack:
            job = held_job(stack)
            watcher = Watcher(stack, job.id)
            disk.fill()
            refused = until_refused(stack)
            stack.set_pace(**GO_ON)
            until(lambda: stack.journal(job.id, 1)[-1]["type"] == "artifact", "the run to end unheard", 30)
            time.sleep(stack.settings.lease_s + 1)
            disk.empty()
            recovered = until_whole(stack, job, watcher)
            assert stack.assert_whole(job, attempts=1) == 1
            assert codes(stack, job) == []
            (more,) = stack.submit(epochs=1)
            stack.await_state(more.id, "succeeded")
            record("full disk, book: refused after", refused, "s", 5)
            record("full disk, book: job done after space returned", recovered, "s", 5)


def test_one_disk_for_everything(tmp_path: Path) -> None:
    with stack_on(".", tmp_path) as (stack, disk):
        job = held_job(stack)
        watcher = Watcher(stack, job.id)
        disk.fill()
        refused = upload(stack, 2 * MIB)
        assert refused.status_code in (503, 507), refused.text
        go_on_without_room(stack, disk)
        time.sleep(stack.settings.lease_s + 1)
        disk.empty()
        recovered = until_whole(stack, job, watcher)
        assert set(codes(stack, job)) <= FULL_CODES
        assert upload(stack, 2 * MIB).status_code == 202
        record("full disk, all of it: job done after space returned", recovered, "s")


def go_on_without_room(stack: SimStack, disk: SmallDisk) -> None:
    """Let the run go on: the word for it needs a few bytes on the same disk."""
    disk.empty()
    stack.set_pace(**GO_ON)
    disk.fill()


def until_refused(stack: SimStack) -> float:
    """Submit until it is refused, since a book may have room inside its file; return the seconds it took."""

    def is_refused() -> bool:
        text = "# a comment that takes space\n" * 2000
        answer = post(stack, "/v1/architectures", params={"name": "m"}, content=f"nc: 1\n{text}".encode())
        if answer.status_code == 422:
            answer = post(stack, "/v1/jobs", json=stack.request(epochs=1))
        assert answer.status_code in (201, 507), answer.text
        return (answer.status_code, answer.json().get("code")) == (507, "STORAGE_FULL")

    return until(is_refused, "a submission to be refused", 30)


def post(stack: SimStack, path: str, **more: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {stack.token}"}
    return httpx.post(f"{stack.url()}{path}", headers=headers, timeout=60, **more)


def upload(stack: SimStack, size: int) -> httpx.Response:
    headers = {"Authorization": f"Bearer {stack.token}"}
    content = ZIP_HEAD + hashlib.shake_256(b"upload").digest(size)
    return httpx.put(
        f"{stack.url()}/v1/datasets", params={"name": "u"}, content=content, headers=headers, timeout=60
    )
