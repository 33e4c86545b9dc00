"""Write a dataset as a zip that others can read, YOLO folders or COCO JSON: the same dataset, the same bytes.

The zip is made piece by piece while it is sent, so neither memory nor disk grows with the dataset. Pictures
go as they are, numbers with all their digits.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal

from api.domain.blobs import BlobStore

Format = Literal["yolo", "coco"]
_DATE = (1980, 1, 1, 0, 0, 0)
_MODE = 0o100644 << 16
_UNIX = 3
_BLOCK_BYTES = 1 << 20
_PIECE_BYTES = 1 << 18
_SPLITS = ("train", "val", "test")
Image = Mapping[str, Any]


class _Pipe:
    """What a zip writes into, and what is taken out of it between two writes; it cannot seek."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.size_bytes = 0

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        self.size_bytes += len(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing: what is written is there."""

    def take(self) -> bytes:
        data, self._pieces, self.size_bytes = b"".join(self._pieces), [], 0
        return data


def export(manifest: Mapping[str, Any], blobs: BlobStore, form: Format) -> Iterator[bytes]:
    """Give the bytes of a zip of the dataset; raises FileNotFoundError where a picture is gone."""
    pipe = _Pipe()
    files = flat_names(manifest["images"])
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
        for name, content in _texts(manifest, files, form):
            archive.writestr(_entry(name), content, compress_type=zipfile.ZIP_DEFLATED)
            if pipe.size_bytes >= _PIECE_BYTES:
                yield pipe.take()
        for image, file in zip(manifest["images"], files, strict=True):
            with (
                blobs.open(image["sha256"]) as source,
                archive.open(_entry(f"images/{image['split']}/{file}"), "w") as target,
            ):
                while block := source.read(_BLOCK_BYTES):
                    target.write(block)
                    if pipe.size_bytes >= _PIECE_BYTES:
                        yield pipe.take()
    yield pipe.take()


def flat_names(images: Sequence[Image]) -> list[str]:
    """Return a file name for each image, without folders: its own, made unique by its content and count.

    Unique within a split without the suffix and without case, since labels are found by that.
    """
    taken: set[tuple[str, str]] = set()
    found = []
    for image in images:
        path = PurePosixPath(image["name"])
        stem, number = path.stem, 0
        while (image["split"], stem.lower()) in taken:
            stem = f"{path.stem}-{image['sha256'][:12]}" + (f"-{number}" if number else "")
            number += 1
        taken.add((image["split"], stem.lower()))
        found.append(stem + path.suffix)
    return found


def _texts(manifest: Mapping[str, Any], files: Sequence[str], form: Format) -> Iterator[tuple[str, bytes]]:
    images = manifest["images"]
    splits = [split for split in _SPLITS if any(image["split"] == split for image in images)]
    if form == "coco":
        for split in splits:
            part = [
                (image, file) for image, file in zip(images, files, strict=True) if image["split"] == split
            ]
            content = _json(coco(manifest["names"], part))
            yield f"annotations/instances_{split}.json", content
        return
    yield "data.yaml", data_yaml(manifest["names"], splits).encode()
    for image, file in zip(images, files, strict=True):
        label = PurePosixPath(file).with_suffix(".txt") if PurePosixPath(file).suffix else f"{file}.txt"
        yield f"labels/{image['split']}/{label}", yolo_rows(image).encode()


def data_yaml(names: Sequence[str], splits: Sequence[str]) -> str:
    """Return the description of a YOLO folder; JSON strings are YAML."""
    lines = ["path: ."]
    lines += [f"{split}: images/{split}" for split in splits]
    lines += [f"nc: {len(names)}", "names:"]
    lines += [f"  {number}: {json.dumps(name)}" for number, name in enumerate(names)]
    return "\n".join(lines) + "\n"


def yolo_rows(image: Image) -> str:
    """Return an image's label file: `class x y w h`, normalised, or outlines where every object has one.

    Both kinds cannot stand in one file: readers take its boxes for outlines then.
    """
    polygons = image.get("polygons") or []
    if polygons and all(polygons):
        points = [[value for point in polygon for value in point] for polygon in polygons]
        rows = [[row[0], *point] for row, point in zip(image["rows"], points, strict=True)]
    else:
        rows = image["rows"]
    return "".join(f"{row[0]} {' '.join(map(repr, row[1:]))}\n" for row in rows)


def coco(names: Sequence[str], images: Sequence[tuple[Image, str]]) -> dict[str, Any]:
    """Return COCO's JSON of one split: boxes as x, y, width, height in pixels; ids from 1."""
    told: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (image, file) in enumerate(images, start=1):
        size = {"width": image["width"], "height": image["height"]}
        told.append({"id": number, "file_name": file, **size})
        polygons = image.get("polygons") or [None] * len(image["rows"])
        for row, polygon in zip(image["rows"], polygons, strict=True):
            one = {"id": len(annotations) + 1, "image_id": number, "iscrowd": 0}
            annotations.append(one | _annotation(row, polygon, image["width"], image["height"]))
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    return {"images": told, "annotations": annotations, "categories": categories}


def _annotation(row: Sequence[Any], polygon: Any, width: int, height: int) -> dict[str, Any]:
    number, x, y, w, h = row
    box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
    outline = [[value for px, py in polygon for value in (px * width, py * height)]] if polygon else []
    return {"category_id": number + 1, "bbox": box, "area": box[2] * box[3], "segmentation": outline}


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _DATE)
    entry.create_system, entry.external_attr = _UNIX, _MODE
    return entry


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
