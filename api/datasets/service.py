"""What can be done with datasets: enter a received archive, and tell what its intake found."""

from __future__ import annotations

import json
from typing import Any

from api.access.principal import owner_filter
from api.datasets.schemas import ProblemPage
from api.domain.blobs import Blob, BlobStore
from api.domain.datasets import Created, DatasetBook
from api.domain.records import Dataset, Page, Principal
from api.errors import ConflictError


class DatasetService:
    """Datasets as one caller may see them."""

    def __init__(self, book: DatasetBook, blobs: BlobStore) -> None:
        self._book = book
        self._blobs = blobs

    def enter(self, caller: Principal, name: str, archive: Blob, *, file_name: str) -> Created:
        """Make the dataset of an archive that is stored; raises Conflict for a name that is taken."""
        return self._book.create(caller.id, name, archive, file_name=file_name)

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
