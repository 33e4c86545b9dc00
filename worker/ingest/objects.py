"""Objects as COCO and VOC give them, boxes in pixels of one picture, and how they become label rows.

Whatever the format, a box is clipped, dropped or scaled here by one rule, with an entry. It parses nothing.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from worker.ingest.report import Report
from yolocore.spec.labels import LabelRow

# Annotation tools round to whole pixels or hundredths; less than this over the edge is not worth an entry.
_TOLERANCE_PX = 0.5
_SAME_SHAPE = 0.02


@dataclass(slots=True)
class PixelObject:
    """One object: class index, edges x1 y1 x2 y2 in pixels from the picture's corner, and its place.

    `polygon` holds x0 y0 x1 y1 ... in pixels; `place` and `line` tell a reader of the report where it is.
    """

    cls: int
    box: tuple[float, float, float, float]
    place: str
    line: int | None = None
    polygon: array[float] | None = None


@dataclass(slots=True)
class Annotated:
    """What an annotation file says of one picture; a size of 0 is one it does not tell."""

    file: str
    width: float = 0
    height: float = 0
    objects: list[PixelObject] = field(default_factory=list)


def rows_of(
    annotated: Annotated, name: str, size_wh: tuple[int, int], report: Report
) -> list[tuple[LabelRow, PixelObject]]:
    """Return normalised rows of a picture of `size_wh` pixels, each with the object it comes from."""
    width, height = _frame(annotated, name, size_wh, report)
    found = []
    for item in annotated.objects:
        row = _row(item, width, height, annotated.file, report)
        if row is not None:
            found.append((row, item))
    return found


def _frame(annotated: Annotated, name: str, size_wh: tuple[int, int], report: Report) -> tuple[float, float]:
    """Return the size in pixels that the boxes refer to, comparing the told size with the real one."""
    told, real = (annotated.width, annotated.height), size_wh
    if told == real or not annotated.objects:
        return real
    text = f"{told[0]:g} x {told[1]:g} in the annotations, {real[0]} x {real[1]} in truth"
    if min(told) <= 0:
        report.add(
            "warning",
            "IMAGE_SIZE_UNTOLD",
            f"the annotations tell no size of {name}; the picture's own was used",
            file=annotated.file,
            value=f"{told[0]:g} x {told[1]:g}",
            fix="write the picture's size in pixels",
        )
        return real
    same_shape = abs(told[0] * real[1] - told[1] * real[0]) <= _SAME_SHAPE * told[0] * real[1]
    done = "boxes were scaled with it" if same_shape else "boxes were taken as pixels of the picture as it is"
    report.add(
        "warning",
        "IMAGE_SIZE_DIFFERS",
        f"{name} is {text}; {done}",
        file=annotated.file,
        value=name,
        fix="check that the boxes were drawn on this very picture",
    )
    return told if same_shape else real


def _row(item: PixelObject, width: float, height: float, file: str, report: Report) -> LabelRow | None:
    x1, y1, x2, y2 = item.box
    over = max(-x1, -y1, x2 - width, y2 - height)
    left, right = (min(max(edge, 0.0), width) / width for edge in (x1, x2))
    top, bottom = (min(max(edge, 0.0), height) / height for edge in (y1, y2))
    shown = f"{item.place}: {x1:g} {y1:g} {x2:g} {y2:g}"
    w, h = right - left, bottom - top
    if w <= 0 or h <= 0:
        report.add(
            "warning",
            "LABEL_NO_AREA_DROPPED",
            "the box has no area inside the picture; dropped",
            file=file,
            line=item.line,
            value=shown,
            fix="draw the box again",
        )
        return None
    if over > _TOLERANCE_PX:
        report.add(
            "warning",
            "LABEL_LEAVES_IMAGE",
            f"the box leaves the picture of {width:g} x {height:g} pixels; it was clipped",
            file=file,
            line=item.line,
            value=shown,
        )
    polygon = None if item.polygon is None else _fractions(item.polygon, width, height)
    return LabelRow(item.cls, (left + right) / 2, (top + bottom) / 2, w, h, polygon)


def _fractions(polygon: array[float], width: float, height: float) -> tuple[tuple[float, float], ...]:
    xs = (min(max(x, 0.0), width) / width for x in polygon[::2])
    ys = (min(max(y, 0.0), height) / height for y in polygon[1::2])
    return tuple(zip(xs, ys, strict=True))
