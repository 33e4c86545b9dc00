"""What a person may choose when an archive becomes a dataset: splits, classes, the image size to judge by.

The API checks these choices before anything is stored and the ingest carries them out; both read them here.
Knows nothing of archives or formats.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

ClassName = Annotated[str, Field(min_length=1, max_length=200)]


class SplitShares(BaseModel):
    """Shares of the pictures for an archive that says nothing about splits; they add up to one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: float = Field(0.8, gt=0, le=1, description="Share of pictures to train on.")
    val: float = Field(0.2, gt=0, lt=1, description="Share of pictures to validate on.")
    test: float = Field(0.0, ge=0, lt=1, description="Share of pictures kept for a final test.")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if abs(self.train + self.val + self.test - 1) > 1e-6:
            raise ValueError("train, val and test must add up to 1")
        return self


class ImportOptions(BaseModel):
    """How to read one archive; the defaults take everything as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inspect: bool = Field(False, description="Only look: report what was understood, store no images.")
    format: Literal["yolo", "coco", "voc"] | None = Field(
        None, description="Read as this format, without looking for others."
    )
    splits: SplitShares = Field(SplitShares(), description="Used where the archive names no splits.")
    classes: dict[ClassName, ClassName | None] = Field(
        default_factory=dict,
        max_length=10_000,
        description="New name by old name: several to one merges, null drops; others stay as they are.",
    )
    keep_crowd: bool = Field(False, description="Keep COCO's crowd regions as boxes.")
    imgsz: int = Field(640, ge=32, le=4096, description="Image size, in pixels, the statistics judge by.")
