"""What an architecture looks like over HTTP."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel

from api.domain import records


class ArchitectureView(BaseModel):
    """A model YAML that can become a network, and what its plan says of it."""

    id: str
    name: str
    hash: str
    num_parameters: int
    gflops: float | None
    strides: list[float]
    num_classes: int | None
    text: str
    created_at: float

    @classmethod
    def of(cls, row: records.Architecture) -> Self:
        """Make the view of a row."""
        return cls(
            id=row.id,
            name=row.name,
            hash=row.hash,
            num_parameters=row.num_parameters,
            gflops=row.gflops,
            strides=list(row.strides),
            num_classes=row.num_classes,
            text=row.text,
            created_at=row.created_at,
        )


class ArchitecturePage(BaseModel):
    """Some architectures, newest first."""

    items: list[ArchitectureView]
    next: str | None


class PublicArchitecture(BaseModel):
    """A public YOLOv5 model file: its name and text, to be kept like any other."""

    name: str
    text: str


class PublicArchitectures(BaseModel):
    """All public model files that can be trained."""

    items: list[PublicArchitecture]
