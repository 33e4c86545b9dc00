"""Write a dataset as a zip that others can read, YOLO folders or COCO JSON: the same dataset, the same bytes.

The zip is made piece by piece while it is sent, so neither memory nor disk grows with the dataset. Pictures
go as they are, numbers with all their digits.
"""

from __future__ import annotations

import itertools
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal

from api.domain.blobs import BlobStore
from yolocore.spec.dataset import SPLITS
from yolocore.spec.manifest_text import outlines

Format = Literal["yolo", "coco"]
_DATE = (1980, 1, 1, 0, 0, 0)
_MODE = 0o100644 << 16
_UNIX = 3
_BLOCK_BYTES = 1 << 20
_PIECE_BYTES = 1 << 18
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


def export(
    manifest: Mapping[str, Any], read_images: Callable[[], Iterator[Image]], blobs: BlobStore, form: Format
) -> Iterator[bytes]:
    """Give the bytes of a zip of the dataset; raises FileNotFoundError where a picture is gone.

    `manifest` may be without outlines; `read_images` gives its images once more, with them.
    """
    pipe = _Pipe()
    files = flat_names(manifest["images"])
    texts = _coco_files if form == "coco" else _yolo_files
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
        for name, content in texts(manifest, files, read_images()):
            with archive.open(_entry(name, zipfile.ZIP_DEFLATED), "w", force_zip64=True) as target:
                for piece in content:
                    target.write(piece.encode())
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


def _yolo_files(
    manifest: Mapping[str, Any], files: Sequence[str], images: Iterator[Image]
) -> Iterator[tuple[str, Iterable[str]]]:
    """Give the name and the text of each file but the pictures."""
    splits = {image["split"] for image in manifest["images"]}
    yield "data.yaml", [data_yaml(manifest["names"], [split for split in SPLITS if split in splits])]
    for image, file in zip(images, files, strict=True):
        label = PurePosixPath(file).with_suffix(".txt") if PurePosixPath(file).suffix else f"{file}.txt"
        yield f"labels/{image['split']}/{label}", [yolo_rows(image)]


def _coco_files(
    manifest: Mapping[str, Any], files: Sequence[str], images: Iterator[Image]
) -> Iterator[tuple[str, Iterable[str]]]:
    """Give the name and the pieces of each JSON file; images of a split stand together in a manifest."""
    named = zip(manifest["images"], files, strict=True)
    by_split = itertools.groupby(named, key=lambda one: one[0]["split"])
    for (split, told), (_, part) in zip(by_split, itertools.groupby(images, key=_split_of), strict=True):
        yield f"annotations/instances_{split}.json", _coco_pieces(manifest["names"], told, part)


def _split_of(image: Image) -> str:
    return str(image["split"])


def data_yaml(names: Sequence[str], splits: Sequence[str]) -> str:
    """Return the description of a YOLO folder; JSON strings are YAML."""
    lines = ["path: ."]
    lines += [f"{split}: images/{split}" for split in splits]
    lines += [f"nc: {len(names)}", "names:"]
    lines += [f"  {number}: {json.dumps(name)}" for number, name in enumerate(names)]
    return "\n".join(lines) + "\n"


def yolo_rows(image: Image) -> str:
    """Return an image's label file: `class x y w h`, normalised, or outlines where any object has one.

    Both kinds cannot stand in one file, since readers take its boxes for outlines then: beside outlines, a
    box is written as its four corners.
    """
    lines = outlines(image)
    rows: Iterable[Sequence[Any]] = image["rows"]
    if any(lines):
        points = (line or _corners(row) for row, line in zip(rows, lines, strict=True))
        rows = [
            [row[0], *itertools.chain.from_iterable(line)] for row, line in zip(rows, points, strict=True)
        ]
    return "".join(f"{row[0]} {' '.join(map(repr, row[1:]))}\n" for row in rows)


def _corners(row: Sequence[Any]) -> list[tuple[float, float]]:
    """Return a row's box as an outline; what rounding puts outside the picture would be refused."""
    _, x, y, w, h = row
    left, top, right, bottom = (
        min(max(edge, 0.0), 1.0) for edge in (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
    )
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _coco_pieces(
    names: Sequence[str], told: Iterable[tuple[Image, str]], images: Iterable[Image]
) -> Iterator[str]:
    """Give COCO's JSON of one split: boxes as x, y, width, height in pixels; ids from 1."""
    listed = (
        {"id": number, "file_name": file, "width": image["width"], "height": image["height"]}
        for number, (image, file) in enumerate(told, start=1)
    )
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    yield '{"images":['
    yield from _joined(listed)
    yield '],"annotations":['
    yield from _joined(_annotations(images))
    yield f'],"categories":{_json(categories)}}}'


def _annotations(images: Iterable[Image]) -> Iterator[dict[str, Any]]:
    count = itertools.count(1)
    for number, image in enumerate(images, start=1):
        for row, polygon in zip(image["rows"], outlines(image), strict=True):
            one = {"id": next(count), "image_id": number, "iscrowd": 0}
            yield one | _annotation(row, polygon, image["width"], image["height"])


def _joined(items: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for number, item in enumerate(items):
        yield ("," if number else "") + _json(item)


def _annotation(row: Sequence[Any], polygon: Any, width: int, height: int) -> dict[str, Any]:
    number, x, y, w, h = row
    box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
    outline = [[value for px, py in polygon for value in (px * width, py * height)]] if polygon else []
    return {"category_id": number + 1, "bbox": box, "area": box[2] * box[3], "segmentation": outline}


def _entry(name: str, method: int = zipfile.ZIP_STORED) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _DATE)
    entry.create_system, entry.external_attr, entry.compress_type = _UNIX, _MODE, method
    return entry


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
