"""What a dataset looks like over HTTP."""

from __future__ import annotations

from typing import Any, Literal, Self

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
    options: dict[str, Any] | None = Field(None, description="How the archive is read; null: as it is.")
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
            options=None if row.options is None else dict(row.options),
            links=_links(base, row),
        )


def _links(base: str, row: records.Dataset) -> dict[str, str]:
    links = {"self": base, "problems": f"{base}/problems", "statistics": f"{base}/statistics"}
    if row.manifest_hash is not None:
        links |= {"images": f"{base}/images", "export": f"{base}/export"}
    files = row.files or {}
    if "thumbnails" in files:
        links["thumbnails"] = f"{base}/thumbnails"
    if "page" in files:
        links["report"] = f"{base}/report.html"
    return links


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


class ImageView(BaseModel):
    """An image of a dataset; `boxes` are `class x y w h`, normalised by the image's size in pixels."""

    n: int = Field(description="Position in the dataset, also of its thumbnail.")
    name: str
    split: Literal["train", "val", "test"]
    width: int
    height: int
    size_bytes: int
    sha256: str
    boxes: list[tuple[int, float, float, float, float]]


class ImagePage(BaseModel):
    """Some images, in the manifest's order."""

    items: list[ImageView]
    next: str | None
    classes: list[str]


class Differing(BaseModel):
    """How many images differ in one way, and the first hundred of them."""

    count: int
    first: list[dict[str, Any]]


class DifferingClasses(BaseModel):
    """Classes only one of two datasets has, and those with another number."""

    added: list[str]
    removed: list[str]
    renumbered: list[str]


class DatasetDiff(BaseModel):
    """What another dataset has more, less or otherwise; images are the same by their content."""

    images_added: Differing
    images_removed: Differing
    images_moved: Differing
    boxes_changed: Differing
    classes: DifferingClasses
