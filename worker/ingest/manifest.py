"""Builds the canonical manifest and its statistics from pictures, labels and splits.

It applies the label grammar and writes down what was dropped; it reads no archive and decodes no picture.
"""

from __future__ import annotations

import posixpath
import statistics as stats
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from worker.ingest import names as entry_names
from worker.ingest.collect import Contents
from worker.ingest.images import ImageFacts
from worker.ingest.layout import Layout
from worker.ingest.report import Report
from yolocore.spec.dataset import SPLITS, Manifest, ManifestImage, Polygon, Split
from yolocore.spec.labels import LabelProblem, LabelRow, parse_label_text

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
_NOT_LABELS = frozenset({"classes.txt", "obj.names", "notes.txt", "readme.txt", "license.txt"})
_HEAT_CELLS = 16
_SIZE_BINS = 20


def build_manifest(
    layout: Layout, contents: Contents, facts: Mapping[str, ImageFacts], report: Report
) -> Manifest:
    """Make the manifest of all usable pictures; `facts` are by SHA-256."""
    images: list[ManifestImage] = []
    for split in SPLITS:
        for name in layout.splits.get(split, ()):
            stored = contents.images[name]
            fact = facts[stored.sha256]
            if not _usable(name, fact, report):
                continue
            rows = _rows(name, layout, contents, report)
            polygons: list[Polygon | None] = [None if r.polygon is None else list(r.polygon) for r in rows]
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


def _rows(name: str, layout: Layout, contents: Contents, report: Report) -> list[LabelRow]:
    label = entry_names.label_path(name)
    content = contents.texts.get(label)
    if content is None:
        return []
    rows, problems = parse_label_text(content, num_classes=len(layout.names), tidy=True)
    for problem in problems:
        _report_label(label, problem, report)
    return rows


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
            fix="label files lie where 'images' in the path is replaced by 'labels', with the suffix .txt",
        )
    for split in ("train", "val"):
        if layout.splits.get(split) and not manifest.count(split):
            report.add("error", "SPLIT_EMPTY", f"no picture of {split} is usable")
    _check_copies(manifest, report)
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


def statistics(manifest: Manifest) -> dict[str, Any]:
    """Return counts, box sizes and where boxes lie, as plain numbers for a page to draw."""
    splits = {split: _split_statistics(manifest.images_of(split)) for split in SPLITS}
    boxes: Counter[int] = Counter()
    pictures: Counter[int] = Counter()
    for image in manifest.images:
        boxes.update(row[0] for row in image.rows)
        pictures.update({row[0] for row in image.rows})
    rows = [row for image in manifest.images for row in image.rows]
    return {
        "v": 1,
        "num_images": len(manifest.images),
        "num_boxes": len(rows),
        "splits": splits,
        "classes": [
            {"name": name, "boxes": boxes[index], "images": pictures[index]}
            for index, name in enumerate(manifest.names)
        ],
        "image_width_px": _spread(image.width for image in manifest.images),
        "image_height_px": _spread(image.height for image in manifest.images),
        "box_width": _histogram(row[3] for row in rows),
        "box_height": _histogram(row[4] for row in rows),
        "heat_map": _heat_map(rows),
    }


def _split_statistics(images: list[ManifestImage]) -> dict[str, int]:
    return {
        "images": len(images),
        "backgrounds": sum(not image.rows for image in images),
        "boxes": sum(len(image.rows) for image in images),
    }


def _spread(values: Iterable[int]) -> dict[str, float] | None:
    found = list(values)
    return {"min": min(found), "median": stats.median(found), "max": max(found)} if found else None


def _histogram(values: Iterable[float]) -> list[int]:
    """Count fractions of the picture's side in equal bins from 0 to 1."""
    bins = [0] * _SIZE_BINS
    for value in values:
        bins[min(int(value * _SIZE_BINS), _SIZE_BINS - 1)] += 1
    return bins


def _heat_map(rows: Iterable[tuple[int, float, float, float, float]]) -> list[list[int]]:
    """Count box centres on a coarse grid, first index down, second right."""
    cells = [[0] * _HEAT_CELLS for _ in range(_HEAT_CELLS)]
    for _, x, y, _, _ in rows:
        cells[min(int(y * _HEAT_CELLS), _HEAT_CELLS - 1)][min(int(x * _HEAT_CELLS), _HEAT_CELLS - 1)] += 1
    return cells


def split_counts(manifest: Manifest) -> dict[Split, int]:
    """Return how many pictures each split has."""
    return {split: manifest.count(split) for split in SPLITS}
