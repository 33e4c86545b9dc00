"""What a dataset is: the manifest a run trains on, and the data.yaml people write.

The manifest is canonical and immutable: equal datasets have equal bytes, and its hash names them. It knows
nothing of archives, folders on disk or decoded images.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from yolocore.errors import DatasetError, Problem
from yolocore.spec.data_yaml import DataYaml, parse_data_yaml
from yolocore.spec.manifest_text import ByteSource, ManifestText, canonical_chunks
from yolocore.spec.outline import Outline

__all__ = ["SPLITS", "DataYaml", "Manifest", "ManifestImage", "Split", "parse_data_yaml"]

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Row = tuple[Annotated[int, Field(ge=0)], Fraction, Fraction, Fraction, Fraction]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ManifestImage(_Frozen):
    """One picture: where its bytes are (by content), its upright size, and its label rows.

    `rows` are `class x y w h`, normalised. `polygons`, if present, has one entry a row; null where the row
    was a box.
    """

    split: Split
    name: Annotated[str, Field(min_length=1, max_length=1024)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]
    rows: list[Row] = []
    polygons: list[Outline | None] | None = None

    @field_validator("polygons")
    @classmethod
    def _no_polygon_is_none(cls, polygons: list[Outline | None] | None) -> list[Outline | None] | None:
        return polygons if polygons and any(polygon is not None for polygon in polygons) else None

    @model_validator(mode="after")
    def _polygons_follow_rows(self) -> Self:
        if self.polygons is not None and len(self.polygons) != len(self.rows):
            raise ValueError(f"{self.name}: {len(self.rows)} rows but {len(self.polygons)} polygons")
        return self

    @model_serializer(mode="wrap")
    def _leave_out_absent_polygons(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = handler(self)
        if self.polygons is None:
            data.pop("polygons", None)
        return data

    def as_json(self) -> dict[str, Any]:
        """Return what JSON is made of, as `model_dump` would, at a tenth of its cost."""
        data: dict[str, Any] = {
            "split": self.split,
            "name": self.name,
            "sha256": self.sha256,
            "bytes": self.bytes,
            "width": self.width,
            "height": self.height,
            "rows": self.rows,
        }
        if self.polygons is not None:
            data["polygons"] = [None if outline is None else list(outline) for outline in self.polygons]
        return data


class Manifest(_Frozen):
    """A dataset in its one canonical form: class names, and images sorted by (split, name)."""

    v: Literal[1] = 1
    names: Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(min_length=1)]
    images: list[ManifestImage]

    @model_validator(mode="after")
    def _is_canonical(self) -> Self:
        keys = [(image.split, image.name) for image in self.images]
        for before, after in zip(keys, keys[1:], strict=False):
            if before >= after:
                raise ValueError(f"images are not sorted and unique by (split, name) at {after[1]!r}")
        for image in self.images:
            for row in image.rows:
                if row[0] >= len(self.names):
                    raise ValueError(f"{image.name}: class {row[0]}, but there are {len(self.names)} names")
        return self

    @classmethod
    def build(cls, names: Sequence[str], images: Iterable[ManifestImage]) -> Manifest:
        """Sort the images and make the manifest; raise DatasetError where they cannot form one."""
        ordered = sorted(images, key=lambda image: (image.split, image.name))
        try:
            return cls(names=list(names), images=ordered)
        except ValidationError as error:
            raise _dataset_error(error) from error

    @classmethod
    def parse(cls, text: str | bytes) -> Manifest:
        """Read a manifest's JSON; raise DatasetError naming the first place that is wrong."""
        content = text.encode(errors="surrogatepass") if isinstance(text, str) else text
        try:
            return cls.read(io.BytesIO(content))
        except DatasetError:
            pass  # not canonical, or wrong: read it whole, which tells where
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise _dataset_error(error) from error

    @classmethod
    def read(cls, source: ByteSource) -> Manifest:
        """Read canonical JSON image by image, beside the manifest in little memory; raise DatasetError."""
        text = ManifestText(source)
        try:
            images = [ManifestImage.model_validate(image) for image in text.images()]
            return cls.model_validate({**text.rest, "images": images})
        except ValidationError as error:
            raise _dataset_error(error) from error
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"the manifest is not in its canonical form: {error}") from error

    def canonical_chunks(self) -> Iterator[bytes]:
        """Give the JSON whose SHA-256 names the dataset in pieces: sorted keys, no blanks, UTF-8."""
        images = (image.as_json() for image in self.images)
        return canonical_chunks(images, {"names": self.names, "v": self.v})

    def canonical_json(self) -> bytes:
        """Return that JSON as a whole, which may be hundreds of megabytes."""
        return b"".join(self.canonical_chunks())

    def manifest_hash(self) -> str:
        """Return the SHA-256 of the canonical JSON, in hex."""
        digest = hashlib.sha256()
        for chunk in self.canonical_chunks():
            digest.update(chunk)
        return digest.hexdigest()

    def images_of(self, split: Split) -> list[ManifestImage]:
        """Return the images of one split, in order."""
        return [image for image in self.images if image.split == split]

    def count(self, split: Split) -> int:
        """Return how many images a split has."""
        return sum(image.split == split for image in self.images)


def _dataset_error(error: ValidationError) -> DatasetError:
    problems = [
        Problem("MANIFEST_INVALID", item["msg"], pointer="/" + "/".join(map(str, item["loc"])))
        for item in error.errors(include_url=False, include_input=False)
    ]
    first = problems[0]
    return DatasetError(
        f"the manifest is invalid at {first.pointer}: {first.message}", place=first.pointer, problems=problems
    )
