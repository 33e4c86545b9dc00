"""What is freed, what is kept, and that a pass can be cut off, raced and repeated without loss."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest
import sqlalchemy as sa

from api.domain import tables
from api.domain.blobs import BlobStore
from api.domain.clock import Clock
from api.domain.records import Claim, Dataset, DatasetStatus, IngestResult
from api.loops.collector import Collector
from api.loops.singleton import Singleton
from api.sweep import Freed, Sweeper, digests_in
from tests.api.domain.library import OWNER, Library, make_template, open_library, pointer

DAY = 24 * 3600.0
OLD = 1000.0
JOURNAL = b'{"v":1,"seq":1,"type":"start"}\n'


@dataclass
class Shed:
    """A service's books and files, and a broom."""

    library: Library

    def __post_init__(self) -> None:
        self.blobs = BlobStore(self.library.settings.blobs_dir)
        self.dataset("cells", [b"cell"])
        self.always = {path.name for path in self.blobs.images_root.rglob("*") if path.is_file()}

    @property
    def root(self) -> Path:
        return self.library.settings.data_dir

    def sweeper(self, *, dry_run: bool = False) -> Sweeper:
        library = self.library
        return Sweeper(library.store, self.blobs, library.settings, library.clock.clock(), dry_run=dry_run)

    def sweep(self, *, dry_run: bool = False) -> list[tuple[str, str]]:
        """Do a whole pass without problems; return kinds and names of what went."""
        sweeper = self.sweeper(dry_run=dry_run)
        found = [(freed.kind, freed.name) for freed in sweeper.run() if freed is not None]
        assert sweeper.problems == []
        return found

    def age(self) -> None:
        """Let all files be of long ago, and the rows two days older than they were."""
        for path in self.root.rglob("*"):
            os.utime(path, (OLD, OLD))
        self.library.clock.advance(2 * DAY)

    def files(self) -> set[str]:
        """Return the files of the service but the book's own and those of the dataset always there."""
        found = {path.relative_to(self.root) for path in self.root.rglob("*") if path.is_file()}
        return {str(path) for path in found if path.name not in self.always and "book." not in path.name}

    def dataset(self, name: str, images: list[bytes]) -> Dataset:
        """Bring in a dataset with an archive, a manifest, a report and images of its own."""
        archive = self.blobs.put_bytes(b"archive of " + name.encode())
        made = self.library.datasets.create(OWNER, name, archive, file_name="a.zip").dataset
        task = self.library.tasks.claim("ingest", "w")
        assert task is not None and task.subject_id == made.id
        shas = [self.blobs.put_bytes(image).sha256 for image in images]
        rows = ",".join(f'{{"sha256":"{sha256}"}}' for sha256 in shas)
        manifest = self.blobs.put_bytes(f'{{"name":"{name}","images":[{rows}]}}'.encode())
        report = self.blobs.put_bytes(b"report on " + name.encode())
        for blob in (manifest, report):
            self.library.tasks.note_blob(task.id, task.attempt, blob.sha256, blob.size_bytes)
        result = IngestResult(DatasetStatus.READY, report.sha256, manifest.sha256, classes=("x",))
        self.library.tasks.finish_ingest(task.id, task.attempt, result)
        return self.library.datasets.get(made.id)

    def work(self, claim: Claim, *, checkpoints: tuple[str, ...] = ("e0001-b000000",)) -> Path:
        """Leave the files a worker leaves in the folder of an attempt."""
        folder = self.library.settings.attempt_dir(claim.job.id, claim.attempt)
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "events.jsonl").write_bytes(JOURNAL)
        (folder / "train.log").write_bytes(f"attempt {claim.attempt} of {claim.job.id}".encode())
        for name in checkpoints:
            (folder / "checkpoints" / f"{name}.ckpt").write_bytes(bytes(5000))
        return folder

    def lose(self, claim: Claim) -> None:
        """Let the reaper take a claim back, so that nobody archives anything, and wait out the pause."""
        (held,) = [one for one in self.library.jobs.held() if one.id == claim.job.id]
        self.library.jobs.expire(held)
        self.library.clock.advance(60)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_template(tmp_path_factory.mktemp("template"))


@pytest.fixture(params=["sqlite", "postgresql"])
def shed(request: pytest.FixtureRequest, template: Path, tmp_path: Path) -> Iterator[Shed]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    with open_library(template, tmp_path, retention_days=30, database_url=url) as library:
        yield Shed(library)


def a_finished_job(shed: Shed, checkpoints: tuple[str, ...] = ("e0001-b000000",)) -> str:
    """Run a job that lost its first attempt with the worker, and finished in the second."""
    first = shed.library.running()
    shed.work(first, checkpoints=())
    shed.lose(first)
    second = shed.library.claim()
    shed.work(second, checkpoints=checkpoints)
    shed.library.jobs.finish(second.job.id, second.attempt)
    return second.job.id


def test_what_lives_is_kept(shed: Shed) -> None:
    shed.dataset("blood", [b"one", b"two"])
    running, paused = shed.library.running(), shed.library.running()
    for claim in (running, paused):
        shed.work(claim, checkpoints=("e0001-b000000", "e0002-b000000", "e0003-b000000"))
    shed.library.jobs.pause(paused.job.id)
    shed.library.jobs.release(paused.job.id, paused.attempt)
    shed.age()
    shed.library.clock.advance(365 * DAY)
    before = shed.files()
    assert shed.sweep(dry_run=True) == shed.sweep() == []
    assert shed.files() == before


def test_a_deleted_dataset_gives_back_what_no_other_has(shed: Shed) -> None:
    kept = shed.dataset("kept", [b"one", b"shared"])
    gone = shed.dataset("gone", [b"shared", b"two"])
    shed.age()
    assert shed.sweep() == []
    shed.library.datasets.delete(gone.id)
    assert gone.manifest_hash and gone.report_sha256 and kept.manifest_hash
    own = {shed.blobs.put_bytes(b"two").sha256, gone.sha256, gone.manifest_hash, gone.report_sha256}
    shed.age()
    before = shed.files()
    told = shed.sweep(dry_run=True)
    assert ({kind for kind, _ in told}, {name for _, name in told}) == ({"content"}, own)
    assert shed.files() == before
    assert sorted(shed.sweep()) == sorted(told)
    assert {name.rpartition("/")[2] for name in before - shed.files()} == own
    assert shed.blobs.read_bytes(kept.manifest_hash)
    assert shed.sweep() == []


def test_what_came_just_now_is_kept(shed: Shed) -> None:
    """Bytes whose row is not written yet, and the row of which nothing says so yet."""
    shed.blobs.put_bytes(b"an upload at this moment")
    (shed.blobs.root / "tmp" / "x.part").write_bytes(b"another")
    assert shed.sweep() == []
    shed.age()
    assert {kind for kind, _ in shed.sweep()} == {"temporary file", "content"}
    assert shed.files() == set()


def known(shed: Shed) -> set[str]:
    query = sa.select(tables.blobs.c.sha256)
    return shed.library.store.read(lambda conn: set(conn.execute(query).scalars()))


def test_bytes_that_come_again_while_they_go(shed: Shed) -> None:
    """Stored between the loss of the row and the removal of the file, or entered right after it."""
    gone = shed.dataset("gone", [b"one"])
    shed.library.datasets.delete(gone.id)
    shed.age()
    steps = shed.sweeper().run()
    while gone.sha256 in known(shed):
        next(steps)
    again = shed.dataset("again", [b"one"])
    archive = shed.blobs.put_bytes(b"archive of gone")
    freed = {step.name for step in steps if step is not None}
    shed.library.datasets.create(OWNER, "gone", archive, file_name="a.zip")
    assert archive.sha256 == gone.sha256 not in freed
    assert shed.blobs.read_bytes(archive.sha256) == b"archive of gone"
    assert again.manifest_hash is not None
    for sha256 in digests_in(shed.blobs.path(again.manifest_hash)):
        assert shed.blobs.read_bytes(sha256) == b"one"


def test_an_unreadable_manifest_keeps_all_images(shed: Shed) -> None:
    broken = shed.dataset("broken", [b"one"])
    shed.age()
    assert broken.manifest_hash is not None
    shed.blobs.path(broken.manifest_hash).unlink()
    sweeper = shed.sweeper()
    assert [step for step in sweeper.run() if step is not None] == []
    assert broken.id in sweeper.problems[0]


def test_digests_are_found_across_chunks(tmp_path: Path) -> None:
    path, digest = tmp_path / "m.json", "ab" * 32
    path.write_bytes(b" " * ((1 << 20) - 30) + digest.encode() + b" " * 100)
    assert set(digests_in(path)) == {digest}


def test_of_a_finished_job_the_newest_checkpoint_is_kept_and_the_one_pointed_to(shed: Shed) -> None:
    first = shed.library.running()
    shed.work(first, checkpoints=("e0001-b000000", "e0002-b000000"))
    shed.library.jobs.move_pointer(first.job.id, 1, pointer(1, 2))
    shed.lose(first)
    second = shed.library.claim()
    folder = shed.work(second, checkpoints=("e0003-b000000", "e0010-b000002", "e0010-b000010"))
    (folder / "checkpoints" / ".e0011-b000000.ckpt.7.part").write_bytes(b"half")
    shed.library.jobs.finish(second.job.id, 2)
    assert shed.sweep() == []
    shed.age()
    told = shed.sweep(dry_run=True)
    assert sorted(shed.sweep()) == sorted(told)
    left = sorted(path.name for path in folder.parent.glob("*/checkpoints/*"))
    assert left == ["e0002-b000000.ckpt", "e0010-b000010.ckpt"]
    assert len(told) == 4


def test_a_job_past_its_days_leaves_its_journals(shed: Shed) -> None:
    job_id = a_finished_job(shed)
    shed.age()
    shed.sweep()
    assert (shed.root / "jobs" / job_id).is_dir()
    shed.library.clock.advance(30 * DAY)
    assert shed.sweep(dry_run=True) == [("job folder", job_id)]
    assert shed.library.jobs.logs(job_id, "events.jsonl") == {}
    assert shed.sweep() == [("job folder", job_id)]
    assert not (shed.root / "jobs" / job_id).exists()
    assert shed.library.jobs.get(job_id).cleared_at is not None
    journals = shed.library.jobs.logs(job_id, "events.jsonl")
    assert {number: shed.blobs.read_bytes(one.sha256) for number, one in journals.items()} == {
        1: JOURNAL,
        2: JOURNAL,
    }
    logs = shed.library.jobs.logs(job_id, "train.log")
    assert shed.blobs.read_bytes(logs[1].sha256) == f"attempt 1 of {job_id}".encode()
    shed.age()
    assert shed.sweep() == []


def test_a_job_without_any_file_is_cleared_too(shed: Shed) -> None:
    job = shed.library.submit()
    shed.library.jobs.cancel(job.id)
    lost = shed.library.running()
    shed.lose(lost)
    shed.library.jobs.cancel(lost.job.id)
    shed.library.clock.advance(31 * DAY)
    assert shed.sweep() == []
    for job_id in (job.id, lost.job.id):
        assert shed.library.jobs.get(job_id).cleared_at is not None


def test_a_journal_that_cannot_be_stored_keeps_its_job(shed: Shed) -> None:
    job_id = a_finished_job(shed)
    journal = shed.library.settings.attempt_dir(job_id, 1) / "events.jsonl"
    journal.unlink()
    journal.mkdir()
    shed.library.clock.advance(31 * DAY)
    other = shed.library.submit()
    shed.library.jobs.cancel(other.id)
    shed.library.clock.advance(31 * DAY)
    sweeper = shed.sweeper()
    assert [step for step in sweeper.run() if step is not None] == []
    assert job_id in sweeper.problems[0]
    assert shed.library.jobs.get(job_id).cleared_at is None
    assert shed.library.jobs.get(other.id).cleared_at is not None
    assert journal.parent.is_dir()


def test_a_journal_that_turns_up_after_its_job_was_cleared_is_stored(shed: Shed) -> None:
    """As where the first pass ran on a machine that did not have it."""
    job_id = a_finished_job(shed)
    folder = shed.root / "jobs" / job_id
    shutil.move(folder, shed.root / "elsewhere")
    shed.library.clock.advance(31 * DAY)
    shed.sweep()
    assert shed.library.jobs.get(job_id).cleared_at is not None
    shutil.move(shed.root / "elsewhere", folder)
    assert shed.sweep() == [("job folder", job_id)]
    assert set(shed.library.jobs.logs(job_id, "events.jsonl")) == {1, 2}


def test_kept_for_ever(template: Path, tmp_path: Path) -> None:
    with open_library(template, tmp_path, retention_days=None) as library:
        shed = Shed(library)
        a_finished_job(shed)
        library.clock.advance(10_000 * DAY)
        assert shed.sweep() == []


def test_a_deleted_job_goes_at_once(shed: Shed) -> None:
    job_id = a_finished_job(shed)
    shed.library.jobs.delete(job_id)
    assert shed.sweep(dry_run=True) == shed.sweep() == [("job folder", job_id)]
    shed.age()
    assert shed.sweep() == []
    assert shed.files() == set()


def test_folders_of_others_are_left_alone(shed: Shed) -> None:
    for name in ("jobs/notes", "jobs/job_1", "tasks/mine"):
        (shed.root / name).mkdir(parents=True)
        (shed.root / name / "file").write_bytes(b"x")
    before = shed.files()
    shed.age()
    assert shed.sweep() == []
    assert shed.files() == before


def test_an_ingest_that_died_leaves_nothing(shed: Shed) -> None:
    shed.library.dataset("blood")
    first = shed.library.tasks.claim("ingest", "w1")
    assert first is not None
    (held,) = shed.library.tasks.held()
    shed.library.tasks.expire(held)
    shed.library.clock.advance(60)
    second = shed.library.tasks.claim("ingest", "w2")
    assert second is not None
    for attempt in (1, 2):
        folder = shed.library.settings.tasks_dir / first.id / str(attempt)
        folder.mkdir(parents=True)
        (folder / "image").write_bytes(b"x")
    assert shed.sweep() == []
    shed.age()
    assert shed.sweep(dry_run=True) == shed.sweep() == [("task folder", f"{first.id}/1")]
    shed.library.tasks.release(first.id, second.attempt)
    assert shed.sweep() == [("task folder", f"{first.id}/2")]
    assert not (shed.library.settings.tasks_dir / first.id).exists()


def test_a_pass_that_is_cut_off_anywhere_can_be_done_again(template: Path, tmp_path: Path) -> None:
    most = 0
    for cut in range(0, 60, 3):
        folder = tmp_path / str(cut)
        folder.mkdir()
        with open_library(template, folder, retention_days=30) as library:
            shed = Shed(library)
            gone = shed.dataset("gone", [b"one", b"two"])
            library.datasets.delete(gone.id)
            job_id = a_finished_job(shed)
            shed.age()
            library.clock.advance(30 * DAY)
            steps = list(islice(shed.sweeper().run(), cut))
            shed.sweep()
            assert set(library.jobs.logs(job_id, "events.jsonl")) == {1, 2}
            kept = {
                one.sha256
                for name in ("events.jsonl", "train.log")
                for one in library.jobs.logs(job_id, name).values()
            }
            assert {name.rpartition("/")[2] for name in shed.files()} == kept
            if len(steps) < cut:
                break
            most = cut
    assert most > 5


def test_the_collector_does_it_in_small_steps(shed: Shed) -> None:
    gone = shed.dataset("gone", [bytes([number]) for number in range(20)])
    shed.library.datasets.delete(gone.id)
    shed.age()
    ticking = iter(range(10**6))
    wall = shed.library.clock.clock().wall
    # Each look at the clock finds it a second later, so that a step holds next to nothing.
    clock = Clock(wall=wall, monotonic=lambda: float(next(ticking)))
    singleton = Singleton(shed.library.store, "collector", ttl_s=1e9, clock=clock)
    collector = Collector(shed.library.store, shed.blobs, singleton, shed.library.settings, clock)
    collector.tick()
    after_one = len(shed.files())
    for _ in range(100):
        collector.tick()
    assert after_one > 0
    assert shed.files() == set()


def test_what_is_told_of_a_job_is_counted_once(shed: Shed) -> None:
    a_finished_job(shed, ("e0001-b000000", "e0002-b000000"))
    shed.age()
    shed.library.clock.advance(31 * DAY)
    on_disk = sum(path.stat().st_blocks * 512 for path in (shed.root / "jobs").rglob("*") if path.is_file())
    told = [step for step in shed.sweeper(dry_run=True).run() if step is not None]
    assert {step.kind for step in told} == {"checkpoint", "job folder"}
    assert sum(step.size_bytes for step in told) == on_disk
    assert all(isinstance(step, Freed) for step in told)
