"""What weights look like over HTTP, and what is sent to have them imported."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from api.datasets.orders import MAX_NAME, NAME_PATTERN
from api.domain.weights_records import Weights, WeightsStatus


class WeightsOrder(BaseModel):
    """Weights of bytes the service has: an upload in pieces, or a content of the caller's by its digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=MAX_NAME, pattern=NAME_PATTERN)
    upload: str | None = Field(None, max_length=48, description="Id of an upload that is finished.")
    sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="Digest of a file the caller has sent before."
    )

    file_name: str | None = Field(
        None, max_length=255, description="What the file is called at the sender's; kept as said."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.upload is None) == (self.sha256 is None):
            raise ValueError("give either `upload` or `sha256`")
        return self


class WeightsView(BaseModel):
    """Weights as clients see them."""

    id: str
    name: str
    status: WeightsStatus
    file_name: str
    sha256: str = Field(description="Digest of the file as it was received.")
    size_bytes: int
    stored_sha256: str | None = Field(description="Digest of the file written from it; null until ready.")
    architecture_hash: str | None = Field(description="Digest of the model YAML that came with them.")
    num_classes: int | None
    classes: list[str]
    num_tensors: int
    num_parameters: int = Field(description="Numbers in all tensors.")
    problems: dict[str, int]
    provenance: dict[str, Any] | None = Field(description="What was sent, and what it says of itself.")
    error: dict[str, Any] | None
    revision: int
    created_at: float
    finished_at: float | None
    links: dict[str, str]

    @classmethod
    def of(cls, row: Weights) -> Self:
        """Make the view of a row."""
        return cls(**_values(row))


class WeightsDetail(WeightsView):
    """Weights with the report of their import: problems, tensors by name and shape."""

    report: dict[str, Any] | None = Field(description="Null while the import has not ended.")

    @classmethod
    def with_report(cls, row: Weights, report: dict[str, Any] | None) -> Self:
        """Make the view of a row and its report."""
        return cls(**_values(row), report=report)


def _values(row: Weights) -> dict[str, Any]:
    base = f"/v1/weights/{row.id}"
    counted = ("owner", "num_errors", "num_warnings", "report_sha256", "stored_bytes")
    same = {name: value for name, value in row.__dict__.items() if name not in counted}
    return same | {
        "classes": list(row.classes),
        "problems": {"errors": row.num_errors, "warnings": row.num_warnings},
        "provenance": None if row.provenance is None else dict(row.provenance),
        "error": None if row.error is None else dict(row.error),
        "links": {"self": base, "fit": f"{base}/fit"},
    }


class WeightsPage(BaseModel):
    """Some weights, newest first."""

    items: list[WeightsView]
    next: str | None


class TensorLeftOut(BaseModel):
    """A tensor that is not taken; `given` is its shape in the file, `wanted` in the network."""

    name: str
    reason: str
    given: list[int] | None
    wanted: list[int] | None


class FitView(BaseModel):
    """What a network takes from weights; `usable` if anything learned is among it."""

    architecture: str
    num_classes: int
    usable: bool
    taken: list[str]
    total: int = Field(description="Tensors of the network.")
    left_out: list[TensorLeftOut]
