"""Builds the canonical manifest from pictures, labels and splits.

It applies the label grammar and writes down what was dropped; it reads no archive and decodes no picture.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import replace

from worker.ingest import names as entry_names
from worker.ingest.collect import Contents
from worker.ingest.images import ImageFacts
from worker.ingest.layout import Layout
from worker.ingest.objects import rows_of
from worker.ingest.report import Report
from yolocore.spec.dataset import SPLITS, Manifest, ManifestImage, Split
from yolocore.spec.labels import LabelProblem, LabelRow, parse_label_text
from yolocore.spec.outline import Outline

# A value out of range spoils its row alone; a wrong column count, class or encoding says that the file is not
# what it seems, and then silently training on the rest would be worse than stopping.
_ROW_ONLY = frozenset({"LABEL_NEGATIVE", "LABEL_ABOVE_ONE"})
_FIXES = {
    "LABEL_COLUMNS": "write rows as: class x y w h",
    "LABEL_CLASS": "use class numbers from 0 to the number of names minus 1",
    "LABEL_NOT_A_NUMBER": "write plain decimal numbers, separated by blanks",
    "LABEL_ENCODING": "save the file as UTF-8",
    "LABEL_NEGATIVE": "divide pixels by the picture's width and height",
    "LABEL_ABOVE_ONE": "divide pixels by the picture's width and height",
}
_NO_BOXES_FIX = "label files lie where 'images' in the path is replaced by 'labels', with the suffix .txt"
_NOT_LABELS = frozenset({"classes.txt", "obj.names", "notes.txt", "readme.txt", "license.txt"})


def build_manifest(
    layout: Layout, contents: Contents, facts: Mapping[str, ImageFacts], report: Report
) -> Manifest:
    """Make the manifest of all usable pictures; `facts` are by SHA-256."""
    images: list[ManifestImage] = []
    labels = _Labels(layout, contents, report)
    for split in SPLITS:
        for name in layout.splits.get(split, ()):
            stored = contents.images[name]
            fact = facts[stored.sha256]
            if not _usable(name, fact, report):
                continue
            rows = labels.rows(name, (fact.width, fact.height))
            polygons = [None if row.polygon is None else Outline(row.polygon) for row in rows]
            images.append(
                ManifestImage(
                    split=split,
                    name=_below(name, layout.root),
                    sha256=stored.sha256,
                    bytes=stored.size_bytes,
                    width=fact.width,
                    height=fact.height,
                    rows=[row.numbers for row in rows],
                    polygons=polygons,
                )
            )
    labels.summarise()
    return Manifest.build(layout.names, images)


def _below(name: str, root: str) -> str:
    return name.removeprefix(f"{root}/") if root else name


def _usable(name: str, fact: ImageFacts, report: Report) -> bool:
    if fact.problem is not None:
        code, message = fact.problem
        report.add("warning", code, f"{message}; the picture was left out", file=name, fix="replace the file")
        return False
    if fact.note is not None:
        report.add("warning", fact.note[0], fact.note[1], file=name)
    return True


class _Labels:
    """The rows of each picture, from label files or annotations, with the classes the import asked for."""

    def __init__(self, layout: Layout, contents: Contents, report: Report) -> None:
        self._layout = layout
        self._contents = contents
        self._report = report
        self._dropped = 0

    def rows(self, name: str, size_wh: tuple[int, int]) -> list[LabelRow]:
        """Return the rows of a picture of this size in pixels; what was dropped leaves an entry."""
        if self._layout.objects is None:
            return self._label_file(name)
        annotated = self._layout.objects.get(name)
        if annotated is None:
            return []
        found = rows_of(annotated, name, size_wh, self._report)
        return self._as_asked([(row, item.line, item.place) for row, item in found], annotated.file)

    def summarise(self) -> None:
        """Say how many rows went with classes that the import dropped."""
        if self._dropped:
            text = f"{self._dropped} boxes of classes that the import drops were left out"
            self._report.add("info", "CLASS_ROWS_DROPPED", text, value=self._dropped)

    def _label_file(self, name: str) -> list[LabelRow]:
        label = entry_names.label_path(name)
        content = self._contents.texts.get(label)
        if content is None:
            return []
        rows, problems = parse_label_text(content, num_classes=self._layout.num_label_classes, tidy=True)
        for problem in problems:
            _report_label(label, problem, self._report)
        if self._layout.class_map is None:
            return rows
        return self._as_asked([(row, None, " ".join(map("{:g}".format, row.numbers))) for row in rows], label)

    def _as_asked(self, found: list[tuple[LabelRow, int | None, str]], file: str) -> list[LabelRow]:
        """Give rows their new classes, leave out those of dropped ones (counted) and exact repetitions."""
        first: dict[tuple[int, float, float, float, float], LabelRow] = {}
        numbers = self._layout.class_map
        for row, line, place in found:
            number = row.cls if numbers is None else numbers[row.cls]
            if number is None:
                self._dropped += 1
                continue
            row = row if number == row.cls else replace(row, cls=number)
            if first.setdefault(row.numbers, row) is not row:
                text = "the same box again; removed"
                self._report.add("warning", "LABEL_DUPLICATE", text, file=file, line=line, value=place)
        return list(first.values())


def _report_label(label: str, problem: LabelProblem, report: Report) -> None:
    row_only = problem.code in _ROW_ONLY
    message = f"{problem.message}; the row was dropped" if row_only else problem.message
    report.add(
        "warning" if row_only else problem.severity,
        problem.code,
        message,
        file=label,
        line=problem.line or None,
        value=problem.value or None,
        fix=_FIXES.get(problem.code),
    )


def check_manifest(manifest: Manifest, layout: Layout, contents: Contents, report: Report) -> None:
    """Report what only shows in the whole: no boxes at all, copies, leaks, files that belong nowhere."""
    if manifest.count("train") and not any(image.rows for image in manifest.images_of("train")):
        report.add(
            "error",
            "NO_BOXES",
            "the training pictures have no boxes at all",
            fix=_NO_BOXES_FIX
            if layout.objects is None
            else "check that annotations and pictures belong together",
        )
    for split in ("train", "val"):
        if layout.splits.get(split) and not manifest.count(split):
            report.add("error", "SPLIT_EMPTY", f"no picture of {split} is usable")
    _check_copies(manifest, report)
    if layout.objects is None:
        _check_labels(layout, contents, report)
    used = {name for names in layout.splits.values() for name in names}
    unused = sorted(contents.images.keys() - used)
    if unused:
        report.add("info", "IMAGES_UNUSED", f"{len(unused)} pictures are in no split", file=unused[0])


def _check_copies(manifest: Manifest, report: Report) -> None:
    first: dict[str, ManifestImage] = {}
    for image in manifest.images:
        other = first.setdefault(image.sha256, image)
        if other is image or other.name == image.name:
            continue
        if other.split == image.split:
            report.add("warning", "IMAGE_DUPLICATE", f"the same picture as {other.name}", file=image.name)
        else:
            report.add(
                "warning",
                "SPLIT_LEAK",
                f"the same picture is in {other.split} as {other.name}: accuracy will look too good",
                file=image.name,
                fix="keep the splits apart",
            )


def _check_labels(layout: Layout, contents: Contents, report: Report) -> None:
    owners: dict[str, str] = {}
    for name in sorted({name for names in layout.splits.values() for name in names}):
        label = entry_names.label_path(name)
        other = owners.setdefault(label, name)
        if other != name and label in contents.texts:
            report.add(
                "warning", "LABEL_SHARED", f"the picture shares its label file with {other}", file=name
            )
    folders = {posixpath.dirname(label) for label in owners}
    for text in sorted(contents.texts):
        is_label = posixpath.dirname(text) in folders and posixpath.basename(text).lower() not in _NOT_LABELS
        if is_label and text not in owners and _looks_like_rows(contents.texts[text]):
            report.add("warning", "LABEL_WITHOUT_IMAGE", "no picture belongs to the label file", file=text)


def _looks_like_rows(content: bytes) -> bool:
    return content.lstrip()[:1].isdigit()


def split_counts(manifest: Manifest) -> dict[Split, int]:
    """Return how many pictures each split has."""
    return {split: manifest.count(split) for split in SPLITS}
