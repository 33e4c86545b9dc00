"""What can be done with datasets: enter a received archive, and tell what its intake found."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from api.access.principal import owner_filter
from api.datasets import export as exports
from api.datasets.manifests import difference, images_page, read_listing
from api.datasets.schemas import ImagePage, ImageView, ProblemPage
from api.domain.blobs import Blob, BlobStore
from api.domain.datasets import Created, DatasetBook
from api.domain.records import Dataset, DatasetStatus, Page, Principal
from api.errors import ConflictError, NotFoundError
from yolocore.spec.manifest_text import ManifestText

# Manifests and zips of thumbnails are looked at many times in a row; few, for the memory they take.
_MANIFESTS_KEPT, _ZIPS_KEPT = 2, 4


@dataclass(frozen=True)
class Thumbnails:
    """The small pictures of a dataset; `is_final` where they can never become other ones."""

    path: Path
    digest: str
    is_final: bool

    def content(self, position: int) -> bytes:
        """Return the JPEG at a position; raises NotFoundError."""
        try:
            return _open_zip(self.path).read(f"{position:06d}.jpg")
        except (KeyError, FileNotFoundError) as error:
            raise NotFoundError("THUMBNAIL_NOT_FOUND", f"there is no thumbnail {position}") from error


class DatasetService:
    """Datasets as one caller may see them."""

    def __init__(self, book: DatasetBook, blobs: BlobStore) -> None:
        self._book = book
        self._blobs = blobs

    def enter(
        self,
        caller: Principal,
        name: str,
        archive: Blob,
        *,
        file_name: str,
        options: Mapping[str, Any] | None = None,
        max_owner_bytes: int | None = None,
    ) -> Created:
        """Make the dataset of an archive that is stored; raises Conflict NAME_TAKEN, QUOTA_EXCEEDED."""
        return self._book.create(
            caller.id, name, archive, file_name=file_name, options=options, max_owner_bytes=max_owner_bytes
        )

    def confirm(self, caller: Principal, dataset_id: str, options: Mapping[str, Any]) -> Dataset:
        """Read an archive that was only looked at, or invalid; raises NotFound, Conflict NOT_CONFIRMABLE."""
        return self._book.confirm(dataset_id, owner_filter(caller), options)

    def retry(self, caller: Principal, dataset_id: str) -> Dataset:
        """Look into an archive again after the service failed; raises NotFound, Conflict NOT_RETRYABLE."""
        return self._book.retry_ingest(dataset_id, owner_filter(caller))

    def head(self, archive: Blob, size_bytes: int) -> bytes:
        """Return the first bytes of a stored archive."""
        with self._blobs.open(archive.sha256) as file:
            return file.read(size_bytes)

    def check_name(self, caller: Principal, name: str, *, sha256: str | None, size_bytes: int | None) -> None:
        """Raise Conflict for a name that other bytes have than the ones on their way."""
        self._book.check_name(caller.id, name, sha256=sha256, size_bytes=size_bytes)

    def list(self, caller: Principal, *, limit: int, cursor: str | None) -> Page[Dataset]:
        """Return datasets, newest first."""
        return self._book.list(owner_filter(caller), limit=limit, cursor=cursor)

    def get(self, caller: Principal, dataset_id: str) -> Dataset:
        """Return one; raises NotFound."""
        return self._book.get(dataset_id, owner_filter(caller))

    def delete(self, caller: Principal, dataset_id: str) -> None:
        """Remove one; raises NotFound and Conflict."""
        self._book.delete(dataset_id, owner_filter(caller))

    def problems(self, caller: Principal, dataset_id: str, *, limit: int) -> ProblemPage:
        """Return what the intake found; nothing while it still looks."""
        dataset = self.get(caller, dataset_id)
        report: dict[str, Any] = {}
        if dataset.report_sha256 is not None:
            report = json.loads(self._blobs.read_bytes(dataset.report_sha256))
        items = list(report.get("problems", []))
        return ProblemPage(
            status=dataset.status,
            items=items[:limit],
            truncated=bool(report.get("truncated")) or len(items) > limit,
            summary=dict(report.get("summary", {})),
        )

    def statistics(self, caller: Principal, dataset_id: str) -> dict[str, Any]:
        """Return what was counted; raises ConflictError where there is nothing to count (yet)."""
        dataset = self.get(caller, dataset_id)
        if dataset.statistics is None:
            raise ConflictError("DATASET_NOT_READY", f"the dataset is {dataset.status.value}")
        return dict(dataset.statistics)

    def images(
        self,
        caller: Principal,
        dataset_id: str,
        *,
        limit: int,
        cursor: str | None,
        split: str | None,
        class_: str | None,
    ) -> ImagePage:
        """Return some images; raises NotFound, ConflictError, BadCursor, UnprocessableError."""
        manifest = self._manifest(self.get(caller, dataset_id))
        items, after = images_page(manifest, limit=limit, cursor=cursor, split=split, class_=class_)
        shown = [ImageView.model_validate(item) for item in items]
        return ImagePage(items=shown, next=after, classes=list(manifest["names"]))

    def thumbnail(self, caller: Principal, dataset_id: str, position: int) -> Thumbnails:
        """Return the thumbnails of a dataset that has one at a position; raises NotFound, NotFoundError."""
        dataset = self.get(caller, dataset_id)
        digest = (dataset.files or {}).get("thumbnails")
        if digest is None:
            raise NotFoundError("THUMBNAIL_NOT_FOUND", "the dataset has no thumbnails")
        is_final = dataset.status is DatasetStatus.READY
        return Thumbnails(self._blobs.path(digest), digest, is_final)

    def report_page(self, caller: Principal, dataset_id: str) -> tuple[str, bytes]:
        """Return a file name without suffix, and the report as HTML; raises NotFound, NotFoundError."""
        dataset = self.get(caller, dataset_id)
        digest = (dataset.files or {}).get("page")
        if digest is None:
            raise NotFoundError("REPORT_NOT_FOUND", "the dataset has no report as a page")
        return _file_name(dataset), self._blobs.read_bytes(digest)

    def diff(self, caller: Principal, dataset_id: str, other_id: str) -> dict[str, Any]:
        """Return what another dataset has otherwise; raises NotFound, ConflictError."""
        before, after = self.get(caller, dataset_id), self.get(caller, other_id)
        return difference(self._manifest(before), self._manifest(after))

    def export(self, caller: Principal, dataset_id: str, form: exports.Format) -> tuple[str, Iterator[bytes]]:
        """Return a file name without suffix and the pieces of a zip; raises NotFound, ConflictError."""
        dataset = self.get(caller, dataset_id)
        manifest, path = self._manifest(dataset), self._manifest_path(dataset)
        return _file_name(dataset), exports.export(manifest, lambda: _read_images(path), self._blobs, form)

    def _manifest_path(self, dataset: Dataset) -> Path:
        if dataset.manifest_hash is None:
            raise ConflictError("DATASET_NOT_READY", f"the dataset is {dataset.status.value}")
        return self._blobs.path(dataset.manifest_hash)

    def _manifest(self, dataset: Dataset) -> Mapping[str, Any]:
        return _read_manifest(self._manifest_path(dataset))


@lru_cache(maxsize=_MANIFESTS_KEPT)
def _read_manifest(path: Path) -> Mapping[str, Any]:
    """Read a manifest without outlines; its path names its content, so it never changes."""
    with path.open("rb") as file:
        return read_listing(file)


def _read_images(path: Path) -> Iterator[dict[str, Any]]:
    """Give a manifest's images one by one, with their outlines."""
    with path.open("rb") as file:
        yield from ManifestText(file).images()


@lru_cache(maxsize=_ZIPS_KEPT)
def _open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip whose path names its content; it is closed when nobody holds it any more."""
    return zipfile.ZipFile(path)


def _file_name(dataset: Dataset) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", dataset.name)[:80]
