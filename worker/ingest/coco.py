"""Reads COCO annotation files: pictures, categories, boxes and polygons, each mistake with its id.

Ids are compared as text, because exporters mix numbers and texts. It knows no real picture sizes: boxes
leave here in pixels. Crowd regions and run-length masks keep their box at most.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from worker.ingest.jsonstream import JsonError, decode_json, read_lists
from worker.ingest.report import Report

MAX_NAME_CHARS = 256
_MARKS = (b'"images"', b'"annotations"', b'"categories"')


@dataclass(slots=True)
class CocoImage:
    """A picture as the file lists it: name as written, told size in pixels (0 = not told)."""

    file_name: str
    width: float
    height: float


@dataclass(slots=True)
class CocoObject:
    """An annotation: its own id, the ids it refers to, edges x1 y1 x2 y2 in pixels, maybe an outline."""

    place: str
    image: str
    category: str
    box: tuple[float, float, float, float]
    polygon: array[float] | None = None


@dataclass(slots=True)
class Category:
    """A class by its id, as written; `parent` is the supercategory."""

    name: str
    parent: str
    number: tuple[int, int, str]


@dataclass
class CocoFile:
    """What one file holds, by id as text."""

    name: str
    images: dict[str, CocoImage] = field(default_factory=dict)
    categories: dict[str, Category] = field(default_factory=dict)
    objects: list[CocoObject] = field(default_factory=list)


def looks_like_coco(content: bytes) -> bool:
    """Tell whether a JSON file may be COCO: the keys that make one occur in it."""
    head = content[:4]
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in head:
        content = content.replace(b"\0", b"")
    return all(mark in content for mark in _MARKS)


def parse_coco(content: bytes, name: str, report: Report, *, keep_crowd: bool = False) -> CocoFile | None:
    """Read one file; every problem becomes an entry. None for one that is not COCO or cannot be read."""
    reader = _Reader(CocoFile(name), report, keep_crowd)
    try:
        found = read_lists(
            decode_json(content),
            {"images": reader.image, "categories": reader.category, "annotations": reader.annotation},
        )
    except JsonError as error:
        report.add(
            "error",
            error.code,
            error.message,
            file=name,
            line=error.line or None,
            fix="export the annotations again",
        )
        return None
    if not {"images", "annotations", "categories"} <= found:
        return None
    reader.summarise()
    return reader.file


class _Reader:
    """Takes the items of the three lists one by one."""

    def __init__(self, file: CocoFile, report: Report, keep_crowd: bool) -> None:
        self.file = file
        self._report = report
        self._keep_crowd = keep_crowd
        self._ids: set[str] = set()
        self._counts: Counter[str] = Counter()

    def image(self, item: object) -> None:
        """Take one item of `images`."""
        key = _key(item, "id")
        name = item.get("file_name") if isinstance(item, dict) else None
        if key is None or not isinstance(item, dict) or not isinstance(name, str) or not name.strip():
            self._add("error", "COCO_IMAGE", "a picture needs an id and a file_name", item)
            return
        other = self.file.images.get(key)
        if other is not None:
            severity = "warning" if other.file_name == name else "error"
            self._add(severity, "COCO_DUPLICATE_ID", "two pictures have this id", f"image {key}")
            return
        size = [_number(item.get(side)) for side in ("width", "height")]
        width, height = (0.0 if side is None or not side > 0 or side == math.inf else side for side in size)
        self.file.images[key] = CocoImage(name, width, height)

    def category(self, item: object) -> None:
        """Take one item of `categories`."""
        key = _key(item, "id")
        name = item.get("name") if isinstance(item, dict) else None
        if key is None or not isinstance(item, dict) or not isinstance(name, str) or not _is_name(name):
            text = f"a category needs an id and a name of 1 to {MAX_NAME_CHARS} characters"
            self._add("error", "COCO_CATEGORY", text, item)
            return
        if key in self.file.categories:
            self._add("error", "COCO_DUPLICATE_ID", "two categories have this id", f"category {key}")
            return
        parent = item.get("supercategory")
        self.file.categories[key] = Category(
            name.strip(), parent.strip() if isinstance(parent, str) else "", _sort_key(key)
        )

    def annotation(self, item: object) -> None:
        """Take one item of `annotations`."""
        own = _key(item, "id")
        image, category = _key(item, "image_id"), _key(item, "category_id")
        place = f"annotation {own}" if own is not None else f"annotation at {self._counts['read']} (from 0)"
        self._counts["read"] += 1
        if not isinstance(item, dict) or image is None or category is None:
            text = "an annotation needs an image_id and a category_id"
            self._add("error", "COCO_ANNOTATION", text, place)
            return
        if own is not None and own in self._ids:
            text = "two annotations have this id; both are kept"
            self._add("warning", "COCO_DUPLICATE_ID", text, place)
        elif own is not None:
            self._ids.add(own)
        segmentation = item.get("segmentation")
        crowd = item.get("iscrowd") not in (None, 0, False)
        if crowd and not self._keep_crowd:
            self._counts["crowd"] += 1
            return
        polygon = None if crowd else self._polygon(segmentation, place)
        box = self._box(item.get("bbox"), polygon, place)
        if box is not None:
            self.file.objects.append(CocoObject(place, image, category, box, polygon))

    def summarise(self) -> None:
        """Say once for the file what was left out or simplified."""
        texts = {
            "crowd": ("COCO_CROWD_DROPPED", "crowd regions were left out", "choose keep_crowd to keep them"),
            "mask": ("COCO_MASK_AS_BOX", "run-length masks were not read; their boxes were", None),
            "joined": ("COCO_POLYGONS_JOINED", "outlines in several parts were joined into one each", None),
        }
        for key, (code, text, fix) in texts.items():
            if count := self._counts[key]:
                self._report.add("info", code, f"{count} {text}", file=self.file.name, value=count, fix=fix)

    def _box(
        self, value: object, polygon: array[float] | None, place: str
    ) -> tuple[float, float, float, float] | None:
        if value is None or value == []:
            if polygon is not None:
                xs, ys = polygon[::2], polygon[1::2]
                return min(xs), min(ys), max(xs), max(ys)
            self._add("warning", "COCO_NO_BOX", "the annotation has no box; dropped", place)
            return None
        numbers = [_number(part) for part in value] if isinstance(value, list) else []
        shown = f"{place}: {_short(value)}"
        if len(numbers) != 4 or any(number is None for number in numbers):
            self._add("error", "LABEL_COLUMNS", "a bbox is four numbers: x y width height", shown)
            return None
        x, y, w, h = (float(number) for number in numbers if number is not None)
        if not all(map(math.isfinite, (x, y, w, h, x + w, y + h))):
            self._add("error", "LABEL_NOT_A_NUMBER", "a bbox holds NaN or an infinity", shown)
            return None
        if w < 0 or h < 0:
            self._add("warning", "LABEL_NEGATIVE", "the box has a negative side; dropped", shown)
            return None
        return x, y, x + w, y + h

    def _polygon(self, value: object, place: str) -> array[float] | None:
        """Return the outline, several parts joined by lines to the first point and back (no area added)."""
        if isinstance(value, dict):
            self._counts["mask"] += 1
            return None
        if not isinstance(value, list) or not value:
            return None
        parts = value if isinstance(value[0], list) else [value]
        outline: array[float] = array("d")
        good = 0
        for part in parts:
            numbers = _outline(part)
            if numbers is None:
                text = "an outline is three or more pairs of finite numbers; it was left out"
                self._add("warning", "COCO_POLYGON", text, place)
                continue
            good += 1
            if outline:
                start = outline[:2]
                outline.extend(start if good == 2 else ())
                outline.extend(numbers)
                outline.extend(numbers[:2])
                outline.extend(start)
            else:
                outline = numbers
        self._counts["joined"] += good > 1
        return outline or None

    def _add(self, severity: Any, code: str, message: str, value: object) -> None:
        fixes = {"LABEL_NOT_A_NUMBER": "write plain decimal numbers", "LABEL_NEGATIVE": "draw the box again"}
        shown = value if isinstance(value, str) else _short(value)
        self._report.add(
            severity, code, message, file=self.file.name, value=shown, fix=fixes.get(code, "mend the file")
        )


def _key(item: object, name: str) -> str | None:
    """Return an id as text: whole numbers and texts are ids, nothing else is."""
    value = item.get(name) if isinstance(item, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    return str(value)[:MAX_NAME_CHARS]


def _sort_key(key: str) -> tuple[int, int, str]:
    digits = key.removeprefix("-")
    is_number = digits.isascii() and digits.isdigit()
    return (0, int(key), "") if is_number else (1, 0, key)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _outline(part: object) -> array[float] | None:
    if not isinstance(part, list) or len(part) < 6 or len(part) % 2:
        return None
    try:
        numbers = array("d", part)
    except (TypeError, OverflowError):
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def _is_name(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return 0 < len(name.strip()) <= MAX_NAME_CHARS


def _short(value: object) -> str:
    """Return the outermost parts of a JSON value, never the whole of what may be huge."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_scalar(part)}" for key, part in list(value.items())[:4])
    if isinstance(value, list):
        return ", ".join(_scalar(part) for part in value[:6])
    return _scalar(value)


def _scalar(value: object) -> str:
    return str(value)[:80] if isinstance(value, str | int | float | None) else type(value).__name__
