"""Turns parsed COCO files into one layout: which file is which split, which picture is meant, which classes.

It opens nothing and judges no box; pictures are found among the archive's names only.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from worker.ingest.coco import Category, CocoFile, CocoImage
from worker.ingest.layout import Layout, common_root, missing_splits
from worker.ingest.objects import Annotated, PixelObject
from worker.ingest.pictures import Pictures
from worker.ingest.report import Report, shown
from worker.ingest.splitting import divide, split_of_path
from yolocore.spec.dataset import SPLITS, Split
from yolocore.spec.imports import ImportOptions

# Of COCO's own files on the same pictures these hold all objects, whatever else lies beside them.
_PREFERRED = "instances"


def coco_layout(
    files: Sequence[CocoFile], pictures: Pictures, report: Report, options: ImportOptions
) -> Layout | None:
    """Return the layout of all files together; None where no class is left (the report says why)."""
    chosen = _chosen(files, report)
    numbers, names = _classes(chosen, report)
    if not names:
        report.add("error", "NAMES_EMPTY", "the file names no category", file=chosen[0].name)
        return None
    objects: dict[str, Annotated] = {}
    found: dict[Split | None, list[str]] = {}
    file_splits = split_of_files([file.name for file in chosen])
    for file in chosen:
        split = file_splits[file.name]
        found.setdefault(split, []).extend(_resolve(file, split, pictures, numbers, objects, report))
    everything = sorted(objects)
    root = common_root(everything)
    if set(found) == {None}:
        _note_lone_split(chosen, report)
        splits = divide(everything, root, options.splits, report, place=chosen[0].name)
    else:
        splits = {split: tuple(sorted(set(found[split]))) for split in SPLITS if split in found}
    missing_splits(splits, report, None)
    return Layout(tuple(names), root, splits, objects)


def _note_lone_split(files: Sequence[CocoFile], report: Report) -> None:
    """Say that the split a lone file is called by does not count: a training needs train and val."""
    split = split_of_path(files[0].name) if len(files) == 1 else None
    if split is not None:
        report.add(
            "info",
            "SPLIT_NAME_IGNORED",
            f"the only annotation file is called {split}; its pictures were divided all the same",
            file=files[0].name,
            value=split,
            fix="add a file of another split to keep both as they are",
        )


def _chosen(files: Sequence[CocoFile], report: Report) -> list[CocoFile]:
    """Leave out files without a split where others have one; they repeat the pictures of the others."""
    splits = split_of_files([file.name for file in files])
    kept = [file for file in files if splits[file.name] is not None] or list(files)
    for file in files:
        if file not in kept:
            report.add(
                "warning",
                "ANNOTATIONS_IGNORED",
                f"{kept[0].name} and its like describe the dataset; this file is ignored",
                file=file.name,
                fix="leave it out of the archive, or name its split (train, val, test)",
            )
    return kept


def split_of_files(names: Sequence[str]) -> dict[str, Split | None]:
    """Return the split each file names by what is not the same for all; None for a single file."""
    if len(names) == 1:
        return {names[0]: None}
    shared = posixpath.commonpath([posixpath.dirname(name) for name in names])
    return {name: split_of_path(name.removeprefix(f"{shared}/")) for name in names}


def preferred(names: Sequence[str]) -> list[str]:
    """Return the files that hold all objects, where COCO's others on the same pictures lie beside."""
    return [name for name in names if _PREFERRED in posixpath.basename(name).lower()] or list(names)


def _classes(files: Sequence[CocoFile], report: Report) -> tuple[dict[str, int], list[str]]:
    """Number the categories 0, 1, 2, ... by their ids; return the numbers by name, and the names."""
    first: dict[str, Category] = {}
    for file in files:
        seen: dict[str, str] = {}
        for key, category in file.categories.items():
            first.setdefault(category.name, category)
            if seen.setdefault(category.name, key) != key:
                report.add(
                    "warning",
                    "COCO_CATEGORY_TWICE",
                    "two categories have the same name; they became one class",
                    file=file.name,
                    value=category.name,
                )
    _drop_mere_parents(files, first, report)
    ordered = sorted(first.values(), key=lambda category: category.number)
    names = [category.name for category in ordered]
    if names:
        numbered = ", ".join(f"{c.number[1]}->{i}" for i, c in enumerate(ordered) if c.number[0] == 0)
        report.add(
            "info",
            "CLASSES_RENUMBERED",
            f"{len(names)} categories are numbered from 0 in the order of their ids",
            file=files[0].name,
            value=numbered,
        )
    return {name: index for index, name in enumerate(names)}, names


def _drop_mere_parents(files: Sequence[CocoFile], first: dict[str, Category], report: Report) -> None:
    """Leave out a category without objects that is only the heading of others, as Roboflow writes one."""
    parents = {c.parent for file in files for c in file.categories.values() if c.parent != c.name}
    candidates = parents & first.keys()
    if not candidates:
        return
    for file in files:
        used = {item.category for item in file.objects}
        candidates -= {file.categories[key].name for key in used if key in file.categories}
    for name in sorted(candidates):
        if len(first) > 1:
            del first[name]
            report.add(
                "info",
                "COCO_SUPERCATEGORY",
                "a supercategory without objects was left out of the classes",
                file=files[0].name,
                value=name,
            )


def _resolve(
    file: CocoFile,
    split: Split | None,
    pictures: Pictures,
    numbers: dict[str, int],
    objects: dict[str, Annotated],
    report: Report,
) -> list[str]:
    """Add the file's objects to those of their pictures; return the names of its pictures."""
    by_id: dict[str, str] = {}
    for key, image in file.images.items():
        name = _picture(file, image, split, pictures, report)
        if name is None:
            continue
        if name in objects and objects[name].file == file.name:
            report.add(
                "warning",
                "COCO_IMAGE_TWICE",
                "the file lists the picture twice; its objects were put together",
                file=file.name,
                value=image.file_name,
            )
        by_id[key] = name
        objects.setdefault(name, Annotated(file.name, image.width, image.height))
    for item in file.objects:
        category = file.categories.get(item.category)
        if item.image not in file.images:
            report.add(
                "warning",
                "COCO_ORPHAN",
                f"no picture has the id {shown(item.image)}; the annotation was dropped",
                file=file.name,
                value=item.place,
                fix="list the picture under images",
            )
        elif category is None or category.name not in numbers:
            report.add(
                "error",
                "LABEL_CLASS",
                f"no category has the id {shown(item.category)}",
                file=file.name,
                value=item.place,
                fix="list the category under categories, or take the annotation out",
            )
        elif item.image in by_id:
            cls = numbers[category.name]
            objects[by_id[item.image]].objects.append(
                PixelObject(cls, item.box, item.place, polygon=item.polygon)
            )
    return list(by_id.values())


def _picture(
    file: CocoFile, image: CocoImage, split: Split | None, pictures: Pictures, report: Report
) -> str | None:
    path = image.file_name.replace("\\", "/")
    found = pictures.by_path(path, posixpath.dirname(file.name), split)
    if len(found) == 1:
        return found[0]
    code, text = "LISTED_IMAGE_MISSING", "the file names a picture that is not in the archive"
    if found:
        code, text = (
            "LISTED_IMAGE_AMBIGUOUS",
            f"the name fits {len(found)} pictures of the archive; none was taken",
        )
    report.add(
        "warning",
        code,
        text,
        file=file.name,
        value=image.file_name,
        fix="write file_name as the picture's path in the archive",
    )
    return None
