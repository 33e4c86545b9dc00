"""Turns the VOC annotations of an archive into one layout: pictures by stem, ImageSets, classes by name.

It opens nothing; splits come from ImageSets, else from folders, else from a hash of the pictures' names.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from worker.ingest.layout import Layout, common_root, missing_splits
from worker.ingest.names import stem_path
from worker.ingest.objects import Annotated, PixelObject
from worker.ingest.pictures import Pictures
from worker.ingest.report import Report
from worker.ingest.splitting import divide, split_of_path
from worker.ingest.voc import VocFile
from yolocore.spec.dataset import SPLITS, Split
from yolocore.spec.imports import ImportOptions, SplitShares

_SETS = ("train", "val", "test", "trainval")


def voc_layout(
    files: Mapping[str, VocFile],
    texts: Mapping[str, bytes],
    pictures: Pictures,
    report: Report,
    options: ImportOptions,
) -> Layout | None:
    """Return the layout of all annotations together; None where no class is left (the report says why)."""
    owners = _owners(files, pictures, report)
    names = sorted({item.name for name in owners.values() for item in files[name].objects})
    if not names:
        report.add("error", "NAMES_EMPTY", "the annotations hold no object", file=min(files))
        return None
    report.add(
        "info",
        "CLASSES_SORTED",
        f"{len(names)} classes are numbered from 0 in the order of their names",
        value=", ".join(names),
    )
    numbers = {name: index for index, name in enumerate(names)}
    objects = {
        picture: _annotated(annotation, files[annotation], numbers, report)
        for picture, annotation in owners.items()
    }
    splits = _splits(texts, objects, pictures, report, options.splits)
    missing_splits(splits, report, None)
    everything = [name for group in splits.values() for name in group]
    return Layout(tuple(names), common_root(everything), splits, objects)


def _owners(files: Mapping[str, VocFile], pictures: Pictures, report: Report) -> dict[str, str]:
    """Return the annotation of each picture."""
    owners: dict[str, str] = {}
    for name in sorted(files):
        folder, stem = posixpath.dirname(name), posixpath.basename(stem_path(name))
        found = pictures.by_stem(stem, folder)
        told = posixpath.basename(files[name].filename.replace("\\", "/"))
        if not found and told:
            found = pictures.by_path(told, folder, split_of_path(folder))
        elif told and stem_path(told) != stem and told != stem:
            report.add(
                "info",
                "VOC_FILENAME",
                "filename speaks of another picture; the annotation's own name was used",
                file=name,
                value=files[name].filename,
            )
        if len(found) != 1:
            text = f"its name fits {len(found)} pictures" if found else "no picture belongs to the annotation"
            report.add("warning", "LABEL_WITHOUT_IMAGE", f"{text}; it was left out", file=name)
        elif found[0] in owners:
            text = f"the picture has another annotation, {owners[found[0]]}; this one was left out"
            report.add("warning", "LABEL_SHARED", text, file=name)
        else:
            owners[found[0]] = name
    return owners


def _annotated(name: str, file: VocFile, numbers: Mapping[str, int], report: Report) -> Annotated:
    """Return the objects with edges from the picture's corner: VOC counts from 1 and includes both ends."""
    result = Annotated(name, file.width, file.height)
    difficult = from_zero = 0
    for item in file.objects:
        x1, y1, x2, y2 = item.box
        place = f"object {item.name}"
        if x1 == x2 or y1 == y2:
            report.add(
                "warning",
                "LABEL_NO_AREA_DROPPED",
                "the box has no area; dropped",
                file=name,
                line=item.line,
                value=f"{place}: {x1:g} {y1:g} {x2:g} {y2:g}",
                fix="draw the box again",
            )
            continue
        from_zero += min(x1, y1) == 0
        edges = (x1 - 1 if x1 else 0.0, y1 - 1 if y1 else 0.0, x2, y2)
        result.objects.append(PixelObject(numbers[item.name], edges, place, item.line))
        difficult += item.difficult
    if difficult:
        text = f"{difficult} objects marked difficult were kept"
        report.add("info", "VOC_DIFFICULT", text, file=name, value=difficult)
    if from_zero:
        text = f"{from_zero} boxes begin at 0 although VOC counts pixels from 1; taken as the picture's edge"
        report.add("info", "VOC_FROM_ZERO", text, file=name, value=from_zero)
    return result


def _splits(
    texts: Mapping[str, bytes],
    objects: Mapping[str, Annotated],
    pictures: Pictures,
    report: Report,
    shares: SplitShares,
) -> dict[Split, tuple[str, ...]]:
    listed = _image_sets(texts, pictures, report)
    if listed:
        return _from_sets(listed, report, shares)
    folders = {name: split_of_path(posixpath.dirname(name)) for name in objects}
    if {"train", "val"} <= set(folders.values()):
        return {split: tuple(sorted(n for n, s in folders.items() if s == split)) for split in SPLITS}
    return divide(objects, common_root(sorted(objects)), shares, report)


def _from_sets(
    listed: Mapping[str, list[str]], report: Report, shares: SplitShares
) -> dict[Split, tuple[str, ...]]:
    splits: dict[Split, tuple[str, ...]] = {
        split: tuple(sorted(set(listed[split]))) for split in SPLITS if listed.get(split)
    }
    if "train" in splits or not listed.get("trainval"):
        return splits
    rest = sorted(set(listed["trainval"]) - {name for group in splits.values() for name in group})
    whole = shares.train + shares.val
    two = SplitShares(train=shares.train / whole, val=1 - shares.train / whole, test=0)
    made = divide(rest, common_root(rest), two, report, place="trainval.txt")
    return made | {split: tuple(sorted({*made[split], *names})) for split, names in splits.items()}


def _image_sets(texts: Mapping[str, bytes], pictures: Pictures, report: Report) -> dict[str, list[str]]:
    """Return the pictures named by ImageSets/Main/{train,val,test,trainval}.txt."""
    found: dict[str, list[str]] = {}
    for name in sorted(texts):
        parts = name.split("/")
        if len(parts) < 3 or [part.lower() for part in parts[-3:-1]] != ["imagesets", "main"]:
            continue
        split = stem_path(parts[-1]).lower()
        if split in _SETS:
            home = "/".join([*parts[:-3], "Annotations"])
            found.setdefault(split, []).extend(_listed(name, texts[name], home, pictures, report))
    return found


def _listed(name: str, content: bytes, home: str, pictures: Pictures, report: Report) -> list[str]:
    result: list[str] = []
    for number, line in enumerate(content.decode("utf-8-sig", errors="replace").splitlines(), start=1):
        entry = line.strip().replace("\\", "/")
        if not entry:
            continue
        # A stem may hold blanks; only class lists have a second column, of -1, 0 or 1.
        found = pictures.by_stem(posixpath.basename(entry), home) or pictures.by_path(entry, home, None)
        if not found and entry.rsplit(None, 1)[-1] in ("-1", "0", "1"):
            found = pictures.by_stem(posixpath.basename(entry.rsplit(None, 1)[0]), home)
        if len(found) == 1:
            result.append(found[0])
            continue
        code, text = "LISTED_IMAGE_MISSING", "the list names a picture that is not there"
        if found:
            code, text = "LISTED_IMAGE_AMBIGUOUS", f"the name fits {len(found)} pictures; none was taken"
        report.add("warning", code, text, file=name, line=number, value=entry)
    return result
