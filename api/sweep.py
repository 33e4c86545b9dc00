"""Free the disk space of what nobody needs any more, in small steps, or only tell what would go.

    upload           in pieces, that stood still for too long
    temporary file   of an upload, a publication or a removal that was cut off a day ago
    task folder      of an ingest whose worker died
    checkpoint       of a job that ended a day ago: all but the one it points to and the newest
    job folder       of a job past its days of retention, its journals stored first; of a deleted job at once
    content          a stored file that nothing names: no dataset, no artifact, and as an image no manifest
                     of a dataset; so goes what a deleted dataset or job had, and what an upload or ingest
                     left whose row was never written

A finished job needs its rows and artifacts. A rerun takes its config, dataset and architecture from rows; to
go on for more epochs takes the newest checkpoint, which is why that one stays until the days of retention are
over. The order of each removal makes it safe to be cut off anywhere and done again: row before file, journal
stored before its folder goes. It must not know who calls it.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from api.domain.blobs import BlobStore
from api.domain.clock import SYSTEM_CLOCK, Clock
from api.domain.contents import ContentBook
from api.domain.errors import Conflict, NotFound
from api.domain.ids import is_id
from api.domain.jobs import LOG_KIND, JobBook
from api.domain.records import Artifact
from api.domain.retention import GRACE_S, JOURNAL_NAME, ExpiredJob, RetentionBook
from api.domain.settings import Settings
from api.domain.store import Store
from api.domain.uploads import UploadBook
from api.uploads.parts import PartStore

log = logging.getLogger("trainshed.sweep")

JOBS_AT_ONCE = 100
BLOBS_AT_ONCE = 200
# Bounds the memory of a sweep; each such lot reads all manifests once.
CONTENTS_AT_ONCE = 50_000
_ALL = 10**9
_KEPT_FILES = ((JOURNAL_NAME, "application/jsonl"), ("train.log", "text/plain"))
_CHECKPOINT = re.compile(r"e(\d+)-b(\d+)\.ckpt")
_DIGEST = re.compile(rb"[0-9a-f]{64}")
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Freed:
    """Something that went, or would go: `kind` as this file's list names it, `size_bytes` on disk."""

    kind: str
    name: str
    size_bytes: int


class Sweeper:
    """One pass over a data folder; with `dry_run` it changes nothing."""

    def __init__(
        self,
        store: Store,
        blobs: BlobStore,
        settings: Settings,
        clock: Clock = SYSTEM_CLOCK,
        *,
        dry_run: bool = False,
    ) -> None:
        self._blobs = blobs
        self._settings = settings
        self._clock = clock
        self._dry_run = dry_run
        self._jobs = JobBook(store, settings, clock)
        self._retention = RetentionBook(store, settings, clock)
        self._contents = ContentBook(store)
        self._store = store
        # Of a dry run, which leaves the rows that a real one forgets: bytes told of a job, digests.
        self._counted: dict[str, int] = {}
        self._forgotten: set[str] = set()
        self.problems: list[str] = []

    def run(self) -> Iterator[Freed | None]:
        """Do the pass; gives what went, and None after a step in which nothing did.

        Between two of them nothing is held, so the caller may wait as long as it likes, or stop for good.
        What cannot be removed is left, and told in `problems`. Raises StoreUnavailable.
        """
        yield from stale_uploads(self._store, self._settings, self._clock, dry_run=self._dry_run)
        yield from self._temporary_files()
        yield from self._task_folders()
        yield from self._checkpoints()
        yield from self._expired_jobs()
        yield from self._job_folders()
        yield from self._forget_blobs()
        yield from self._unnamed_contents()

    @property
    def _old(self) -> float:
        """Wall time before which a file was last touched that nobody is about to name."""
        return self._clock.wall() - max(GRACE_S, 2 * self._settings.ingest_timeout_s)

    def _temporary_files(self) -> Iterator[Freed]:
        found = [
            Freed("temporary file", path.name, _size_bytes([path]))
            for path in self._blobs.stale_parts(older_than=self._old)
        ]
        if not self._dry_run:
            self._blobs.drop_stale_parts(older_than=self._old)
        yield from found

    def _task_folders(self) -> Iterator[Freed | None]:
        for folder in _folders(self._settings.tasks_dir, "task"):
            # Read after the folder was seen: a worker makes it after its claim.
            running = self._contents.running_tasks().get(folder.name)
            for attempt in _subfolders(folder):
                if attempt.name == str(running) or _touched_at(attempt) >= self._old:
                    continue
                yield self._remove("task folder", f"{folder.name}/{attempt.name}", attempt)
            if not self._dry_run:
                with contextlib.suppress(OSError):
                    folder.rmdir()
            yield None

    def _checkpoints(self) -> Iterator[Freed | None]:
        for folders in _lots(_folders(self._settings.jobs_dir, "job"), JOBS_AT_ONCE):
            pointers = self._contents.finished([folder.name for folder in folders], before=self._old)
            for folder in folders:
                if folder.name in pointers:
                    for path in _needless(folder, pointers[folder.name]):
                        yield self._remove(
                            "checkpoint", f"{folder.name}/{path.relative_to(folder)}", path, job=folder.name
                        )
                yield None

    def _expired_jobs(self) -> Iterator[Freed | None]:
        """Give up the files of jobs past their days; their folders go in the next step."""
        if self._dry_run:
            for job in self._retention.expired(_ALL):
                yield self._told_of_job(self._settings.jobs_dir / job.id)
            return
        kept: set[str] = set()
        while jobs := [
            job for job in self._retention.expired(JOBS_AT_ONCE + len(kept)) if job.id not in kept
        ]:
            for job in jobs:
                if not self._give_up(job):
                    kept.add(job.id)
                yield None

    def _give_up(self, job: ExpiredJob) -> bool:
        folder = self._settings.jobs_dir / job.id
        try:
            without = [number for number in job.unarchived if not self._archive(folder, number)]
            return self._retention.clear(job.id, without_journal=without)
        except (OSError, Conflict) as error:
            self._note(f"job {job.id} keeps its files: {error}")
            return False

    def _archive(self, folder: Path, attempt: int) -> bool:
        """Store journal and log of an attempt that its worker did not; tells whether there is a journal."""
        found = []
        for name, media_type in _KEPT_FILES:
            with contextlib.suppress(FileNotFoundError):
                blob = self._blobs.link_file(folder / "attempts" / str(attempt) / name)
                found.append(Artifact(name, LOG_KIND, blob.sha256, blob.size_bytes, media_type))
        if found:
            self._retention.archive(folder.name, attempt, found)
        return any(artifact.name == JOURNAL_NAME for artifact in found)

    def _job_folders(self) -> Iterator[Freed | None]:
        for folders in _lots(_folders(self._settings.jobs_dir, "job"), JOBS_AT_ONCE):
            deletable = set(self._retention.deletable([folder.name for folder in folders]))
            for folder in folders:
                if folder.name in deletable:
                    yield self._remove_job(folder)
            yield None

    def _remove_job(self, folder: Path) -> Freed | None:
        if self._dry_run:
            return self._told_of_job(folder)
        try:
            stored = self._jobs.logs(folder.name, JOURNAL_NAME)
            for attempt in _subfolders(folder / "attempts"):
                if attempt.name.isdigit() and int(attempt.name) not in stored:
                    self._archive(folder, int(attempt.name))
        except NotFound:
            pass
        except OSError as error:
            self._note(f"{folder} stays, its journals cannot be stored: {error}")
            return None
        return self._remove("job folder", folder.name, folder)

    def _told_of_job(self, folder: Path) -> Freed | None:
        size = _size_bytes([folder]) - self._counted.get(folder.name, 0)
        return Freed("job folder", folder.name, size) if folder.is_dir() else None

    def _forget_blobs(self) -> Iterator[None]:
        """Drop the rows of blobs nobody refers to; the next step finds their files."""
        if self._dry_run:
            self._forgotten = {blob.sha256 for blob in self._retention.unreferenced_blobs(_ALL)}
            return
        while blobs := self._retention.unreferenced_blobs(BLOBS_AT_ONCE):
            if not self._retention.drop_blobs([blob.sha256 for blob in blobs]):
                return
            yield None

    def _unnamed_contents(self) -> Iterator[Freed | None]:
        lot: dict[str, int] = {}
        for shard in self._blobs.shards():
            sizes = {
                blob.sha256: blob.size_bytes for blob in self._blobs.old_contents(shard, older_than=self._old)
            }
            lot |= {sha256: sizes[sha256] for sha256 in self._unnamed(sizes)}
            if len(lot) >= CONTENTS_AT_ONCE:
                yield from self._remove_unnamed(lot)
                lot = {}
            yield None
        yield from self._remove_unnamed(lot)

    def _unnamed(self, digests: Iterable[str]) -> list[str]:
        known = list(digests)
        return [*self._contents.unnamed(known), *(self._forgotten & set(known))]

    def _remove_unnamed(self, lot: dict[str, int]) -> Iterator[Freed | None]:
        """Remove of some contents those that no manifest of a dataset names; none if one cannot be read."""
        manifests = self._contents.manifests() if lot else {}
        for manifest, dataset_id in manifests.items():
            try:
                for sha256 in digests_in(self._blobs.path(manifest)):
                    lot.pop(sha256, None)
            except OSError as error:
                self._note(f"no content goes: the manifest of {dataset_id} cannot be read: {error}")
                return
            yield None
        # Asked again: some may be named since. What is named from now on is young, and `remove` leaves it.
        for sha256 in self._unnamed(lot):
            yield self._remove_content(sha256, lot[sha256])

    def _remove_content(self, sha256: str, size_bytes: int) -> Freed | None:
        if self._dry_run:
            return Freed("content", sha256, size_bytes)
        try:
            freed = self._blobs.remove(sha256, older_than=self._old)
        except OSError as error:
            self._note(f"content {sha256} stays: {error}")
            return None
        return Freed("content", sha256, freed) if freed else None

    def _remove(self, kind: str, name: str, path: Path, *, job: str | None = None) -> Freed | None:
        size = _size_bytes([path])
        if self._dry_run:
            if job is not None:
                self._counted[job] = self._counted.get(job, 0) + size
            return Freed(kind, name, size)
        try:
            _delete(path)
        except OSError as error:
            self._note(f"{kind} {name} stays: {error}")
            return None
        return Freed(kind, name, size)

    def _note(self, problem: str) -> None:
        log.warning("%s", problem)
        self.problems.append(problem)


def stale_uploads(
    store: Store, settings: Settings, clock: Clock = SYSTEM_CLOCK, *, dry_run: bool = False
) -> Iterator[Freed]:
    """Forget uploads whose time is over, then remove the files of all that are in no book; gives what went.

    One that is written to right now stays. Raises StoreUnavailable.
    """
    if not settings.uploads_dir.is_dir():
        return
    book, parts = UploadBook(store, clock), PartStore(settings.uploads_dir)
    going = {name for name in book.expired(_ALL) if not parts.is_busy(name)}
    if not dry_run:
        going = {name for name in going if book.drop_expired(name)}
    for name in parts.ids():
        # A row is made before its file, so a file without one is a rest.
        if name not in going and book.known(name):
            continue
        size = _size_bytes([parts.path(name)])
        if not dry_run:
            parts.remove(name)
        yield Freed("upload", name, size)


def digests_in(path: Path) -> Iterator[str]:
    """Give everything in a file that could be a sha256 in hex, in flat memory; raises OSError."""
    tail = b""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            text = tail + chunk
            for match in _DIGEST.finditer(text):
                yield match[0].decode()
            # One that is cut by the end of the chunk is found whole in the next; found twice does no harm.
            tail = text[-63:]


def _needless(job_folder: Path, pointed: str | None) -> list[Path]:
    """Return the checkpoints of a finished job but the newest and the pointed-to, and halves of files."""
    found = []
    for path in job_folder.glob("attempts/*/checkpoints/*.ckpt"):
        match = _CHECKPOINT.fullmatch(path.name)
        if match is not None and path.parent.parent.name.isdigit():
            found.append((int(path.parent.parent.name), int(match[1]), int(match[2]), path))
    kept = {job_folder / pointed} if pointed is not None else set()
    if found:
        kept.add(max(found)[-1])
    return [
        *(path for *_, path in sorted(found) if path not in kept),
        *job_folder.glob("attempts/*/*.part"),
        *job_folder.glob("attempts/*/checkpoints/*.part"),
        *job_folder.glob("attempts/*/artifacts/*.part"),
    ]


def _folders(root: Path, prefix: str) -> list[Path]:
    return [folder for folder in _subfolders(root) if is_id(folder.name, prefix)]


def _subfolders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if path.is_dir() and not path.is_symlink())
    except FileNotFoundError:
        return []


def _lots(folders: list[Path], size: int) -> Iterable[list[Path]]:
    return (folders[start : start + size] for start in range(0, len(folders), size))


def _touched_at(folder: Path) -> float:
    """Return when something was last added to a folder, or written into it at its top."""
    with contextlib.suppress(FileNotFoundError):
        return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    return float("inf")


def _size_bytes(paths: Iterable[Path]) -> int:
    """Return the disk space under paths; bytes that have a name elsewhere too are not counted."""
    total = 0
    for root in paths:
        for path in (root, *root.rglob("*")):
            with contextlib.suppress(FileNotFoundError):
                seen = path.lstat()
                if not path.is_dir() and seen.st_nlink == 1:
                    total += seen.st_blocks * 512
    return total


def _delete(path: Path) -> None:
    """Remove a file, or a folder, its checkpoints first; raises OSError for what cannot be removed."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    for checkpoints in path.glob("attempts/*/checkpoints"):
        shutil.rmtree(checkpoints)
    shutil.rmtree(path)
