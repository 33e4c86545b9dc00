"""What a dataset looks like over HTTP."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, Field

from api.domain import records


class DatasetView(BaseModel):
    """A dataset as clients see it; `splits` counts images, `num_boxes` all of their boxes."""

    id: str
    name: str
    status: records.DatasetStatus
    file_name: str
    sha256: str = Field(description="Digest of the archive as it was received.")
    size_bytes: int
    manifest_hash: str | None = Field(description="Digest of the canonical manifest; null until it is ready.")
    num_classes: int
    classes: list[str]
    splits: dict[str, int]
    num_boxes: int
    problems: dict[str, int]
    error: dict[str, Any] | None
    created_at: float
    finished_at: float | None
    links: dict[str, str]

    @classmethod
    def of(cls, row: records.Dataset) -> Self:
        """Make the view of a row."""
        base = f"/v1/datasets/{row.id}"
        return cls(
            id=row.id,
            name=row.name,
            status=row.status,
            file_name=row.file_name,
            sha256=row.sha256,
            size_bytes=row.size_bytes,
            manifest_hash=row.manifest_hash,
            num_classes=row.num_classes,
            classes=list(row.classes),
            splits=dict(row.splits),
            num_boxes=row.num_boxes,
            problems={"errors": row.num_errors, "warnings": row.num_warnings},
            error=None if row.error is None else dict(row.error),
            created_at=row.created_at,
            finished_at=row.finished_at,
            links={"self": base, "problems": f"{base}/problems", "statistics": f"{base}/statistics"},
        )


class DatasetPage(BaseModel):
    """Some datasets, newest first."""

    items: list[DatasetView]
    next: str | None


class ProblemPage(BaseModel):
    """What the intake found, worst first; `truncated` where there is more than is told."""

    status: records.DatasetStatus
    items: list[dict[str, Any]]
    truncated: bool
    summary: dict[str, Any]
