"""The grammar of one label line, so that all who read or write labels agree on what a row means.

A row is `class x y w h` (normalised centre and size) or `class x1 y1 x2 y2 x3 y3 ...` (a polygon). Each row
is judged on its own: a bad row costs that row, never its neighbours or the picture. It knows nothing of
files, images or archives; the caller adds the file's name to what is reported here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

MIN_POLYGON_NUMBERS = 7  # the class and three points
BOX_NUMBERS = 5
MAX_SHOWN_VALUE = 120
MAX_LABEL_BYTES = 8 << 20  # over a hundred thousand boxes; a larger file is something else


@dataclass(frozen=True, slots=True)
class LabelRow:
    """One object: class and box (centre, size, normalised), and its outline if the row was a polygon."""

    cls: int
    x: float
    y: float
    w: float
    h: float
    polygon: tuple[tuple[float, float], ...] | None = None

    @property
    def numbers(self) -> tuple[int, float, float, float, float]:
        """Class, x, y, w, h: the row as a manifest stores it."""
        return (self.cls, self.x, self.y, self.w, self.h)

    @property
    def leaves_image(self) -> bool:
        """Whether the box reaches outside the picture by more than rounding of six decimals explains."""
        return max(self.x + self.w / 2, self.y + self.h / 2) > 1 + 1e-5 or (
            min(self.x - self.w / 2, self.y - self.h / 2) < -1e-5
        )


@dataclass(frozen=True, slots=True)
class LabelProblem:
    """What is wrong with one line (counted from 1; 0 = the whole file), and whether its row was dropped."""

    code: str
    message: str
    line: int = 0
    value: str = ""
    severity: Literal["error", "warning"] = "error"

    @property
    def dropped(self) -> bool:
        """Whether the row is missing from the result."""
        return self.severity == "error" or self.code in _DROPPING_WARNINGS


_DROPPING_WARNINGS = frozenset({"LABEL_DUPLICATE", "LABEL_NO_AREA_DROPPED"})


def parse_label_line(
    line: str, *, num_classes: int | None = None, line_number: int = 1
) -> LabelRow | LabelProblem:
    """Read one non-blank label line.

    `num_classes` None accepts any class number. Coordinates lie in 0..1, both ends allowed; a row of at least
    seven numbers is a polygon and its box is the polygon's extent.
    """

    def problem(code: str, message: str) -> LabelProblem:
        return LabelProblem(code, message, line_number, line.strip()[:MAX_SHOWN_VALUE])

    numbers = _numbers(line)
    if numbers is None:
        return problem("LABEL_NOT_A_NUMBER", "a row holds plain decimal numbers separated by blanks")
    count = len(numbers)
    is_polygon = count >= MIN_POLYGON_NUMBERS
    if is_polygon and count % 2 == 0:
        return problem("LABEL_COLUMNS", f"{count} columns: a polygon has a class and pairs of x y")
    if not is_polygon and count != BOX_NUMBERS:
        return problem("LABEL_COLUMNS", f"{count} columns: a box has 5 (class x y w h), a polygon 7 or more")
    wrong = _range_error(numbers, num_classes)
    if wrong is not None:
        return problem(*wrong)
    if is_polygon:
        return _polygon_row(numbers)
    cls, x, y, w, h = numbers
    return LabelRow(int(cls), x, y, w, h)


def parse_label_text(
    text: str | bytes, *, num_classes: int | None = None, tidy: bool = False
) -> tuple[list[LabelRow], list[LabelProblem]]:
    """Read a whole label file: the rows that hold, and everything that is wrong or was changed.

    Exact duplicates are removed with a warning; removal sorts the rows, as YOLOv5 does. A box that leaves the
    picture or has no area is kept with a warning; with `tidy` it is clipped, or dropped when nothing is left.
    """
    decoded = _decode(text)
    if isinstance(decoded, LabelProblem):
        return [], [decoded]
    rows: list[tuple[int, LabelRow]] = []
    problems: list[LabelProblem] = []
    for number, line in enumerate(decoded.splitlines(), start=1):
        if not line.strip():
            continue
        parsed = parse_label_line(line, num_classes=num_classes, line_number=number)
        if isinstance(parsed, LabelProblem):
            problems.append(parsed)
            continue
        kept, notes = _judge_box(parsed, number, tidy=tidy)
        problems.extend(notes)
        if kept is not None:
            rows.append((number, kept))
    unique, duplicates = _without_duplicates(rows)
    problems.extend(duplicates)
    problems.sort(key=lambda problem: problem.line)
    return unique, problems


def clip_row(row: LabelRow) -> LabelRow:
    """Clip a box and its polygon to the picture; sizes may become zero."""
    x1, x2 = (min(max(edge, 0.0), 1.0) for edge in (row.x - row.w / 2, row.x + row.w / 2))
    y1, y2 = (min(max(edge, 0.0), 1.0) for edge in (row.y - row.h / 2, row.y + row.h / 2))
    return LabelRow(row.cls, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, row.polygon)


def detection_rows(
    detections: Iterable[Sequence[float]], size_hw: tuple[int, int], *, with_score: bool = False
) -> str:
    """Return detections `x1 y1 x2 y2 score class` in pixels as label text: lines `class x y w h [score]`.

    Centre and size are fractions of the picture's `size_hw`; numbers have six digits (%g). No detections
    give no text.
    """
    height, width = size_hw
    lines = []
    for x1, y1, x2, y2, score, cls in detections:
        numbers = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
        if with_score:
            numbers.append(score)
        lines.append(" ".join([str(int(cls)), *(f"{number:g}" for number in numbers)]) + "\n")
    return "".join(lines)


def _decode(text: str | bytes) -> str | LabelProblem:
    if isinstance(text, str):
        return text.removeprefix("\ufeff")
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return LabelProblem("LABEL_ENCODING", "the file is UTF-16; save it as UTF-8", 0, "UTF-16")
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        return LabelProblem("LABEL_ENCODING", "the file is not UTF-8 text", line, f"byte {error.start}")


def _numbers(line: str) -> list[float] | None:
    # float() alone would take 1_0 for ten, full-width digits, inf and nan.
    if not line.isascii() or "_" in line:
        return None
    try:
        numbers = [float(word) for word in line.split()]
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def _range_error(numbers: list[float], num_classes: int | None) -> tuple[str, str] | None:
    cls = numbers[0]
    if cls != int(cls):
        return "LABEL_CLASS", f"class {cls} is not a whole number"
    if cls < 0:
        return "LABEL_CLASS", f"class {int(cls)} is negative; classes count from 0"
    if num_classes is not None and cls >= num_classes:
        return "LABEL_CLASS", f"class {int(cls)}, but the dataset has classes 0 to {num_classes - 1}"
    if min(numbers[1:]) < 0:
        return "LABEL_NEGATIVE", f"negative value {min(numbers[1:])}"
    if max(numbers[1:]) > 1:
        return (
            "LABEL_ABOVE_ONE",
            f"value {max(numbers[1:])} above 1; coordinates are fractions of the picture",
        )
    return None


def _polygon_row(numbers: list[float]) -> LabelRow:
    xs, ys = numbers[1::2], numbers[2::2]
    x1, x2, y1, y2 = min(xs), max(xs), min(ys), max(ys)
    box = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
    return LabelRow(int(numbers[0]), *box, polygon=tuple(zip(xs, ys, strict=True)))


def _judge_box(row: LabelRow, line: int, *, tidy: bool) -> tuple[LabelRow | None, list[LabelProblem]]:
    value = " ".join(f"{number:g}" for number in row.numbers)
    notes: list[LabelProblem] = []
    if row.leaves_image:
        done = "it was clipped" if tidy else "it is kept as it is"
        notes.append(
            LabelProblem("LABEL_LEAVES_IMAGE", f"the box leaves the picture; {done}", line, value, "warning")
        )
        row = clip_row(row) if tidy else row
    if row.w <= 0 or row.h <= 0:
        code, done = ("LABEL_NO_AREA_DROPPED", "dropped") if tidy else ("LABEL_NO_AREA", "kept")
        notes.append(LabelProblem(code, f"the box has no area; {done}", line, value, "warning"))
        return (None if tidy else row), notes
    return row, notes


def _without_duplicates(
    rows: list[tuple[int, LabelRow]],
) -> tuple[list[LabelRow], list[LabelProblem]]:
    first: dict[tuple[int, float, float, float, float], LabelRow] = {}
    problems: list[LabelProblem] = []
    for line, row in rows:
        if row.numbers in first:
            value = " ".join(f"{number:g}" for number in row.numbers)
            problems.append(
                LabelProblem("LABEL_DUPLICATE", "the same row again; removed", line, value, "warning")
            )
        else:
            first[row.numbers] = row
    if not problems:
        return [row for _, row in rows], []
    return [first[numbers] for numbers in sorted(first)], problems
