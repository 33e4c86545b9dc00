"""Finds out which picture belongs to which split: data.yaml, its paths, and the folders people really ship.

It works on the names of an archive, never on a disk, so no path can lead out of the dataset.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from worker.ingest.collect import Contents
from worker.ingest.objects import Annotated
from worker.ingest.report import Report
from yolocore.spec.dataset import SPLITS, Split

_GUESSES: dict[Split, tuple[str, ...]] = {
    "train": ("images/train", "train/images", "images/train2017", "train"),
    "val": ("images/val", "val/images", "images/valid", "valid/images", "images/val2017", "val", "valid"),
    "test": ("images/test", "test/images", "test"),
}


@dataclass(frozen=True)
class Layout:
    """Class names, the dataset's folder inside the archive, and the picture names of each split.

    `objects` holds what annotation files say of each picture; None where label files lie beside the pictures.
    `class_map` gives each class number of the labels its index in `names`, None to drop it; None = the same.
    """

    names: tuple[str, ...]
    root: str
    splits: Mapping[Split, tuple[str, ...]]
    objects: Mapping[str, Annotated] | None = None
    class_map: tuple[int | None, ...] | None = None

    @property
    def num_label_classes(self) -> int:
        """How many classes the labels may speak of."""
        return len(self.names) if self.class_map is None else len(self.class_map)


@dataclass
class Tree:
    """The picture names of an archive, and the folders above them."""

    images: Sequence[str]
    folders: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        found: set[str] = {""}
        for name in self.images:
            head = posixpath.dirname(name)
            while head and head not in found:
                found.add(head)
                head = posixpath.dirname(head)
        self.folders = frozenset(found)

    def below(self, folder: str) -> list[str]:
        """Return the pictures in a folder and its sub-folders, sorted."""
        prefix = f"{folder}/" if folder else ""
        return sorted(name for name in self.images if name.startswith(prefix))


def guess_splits(tree: Tree, root: str) -> dict[Split, tuple[str, ...]]:
    """Return the pictures of the usual folders below `root`, for datasets without a data.yaml."""
    splits: dict[Split, tuple[str, ...]] = {}
    for split, folders in _GUESSES.items():
        for folder in folders:
            candidate = posixpath.join(root, folder) if root else folder
            if candidate in tree.folders:
                splits[split] = tuple(tree.below(candidate))
                break
    return splits


def common_root(pictures: Sequence[str]) -> str:
    """Return the deepest folder all pictures lie in, without the folder that holds nothing but pictures.

    Names below it stay the same when the archive is packed with one more folder around everything.
    """
    folders = {posixpath.dirname(name) for name in pictures}
    if not folders or "" in folders:
        return ""
    shared = posixpath.commonpath(folders)
    return posixpath.dirname(shared) if len(folders) == 1 else shared


class SplitResolver:
    """Turns the entries of a data.yaml (folders, list files) into picture names."""

    def __init__(self, contents: Contents, tree: Tree, yaml_name: str, report: Report) -> None:
        self._contents = contents
        self._images = set(tree.images)
        self._tree = tree
        self._yaml = yaml_name
        self._root = posixpath.dirname(yaml_name)
        self._report = report

    def resolve(self, split: Split, entries: Iterable[str], base: str | None) -> tuple[str, ...]:
        """Return the pictures of one split, sorted and unique; problems become entries of the report."""
        found: set[str] = set()
        for entry in entries:
            found.update(self._entry(split, entry.strip().replace("\\", "/"), base))
        return tuple(sorted(found))

    def _entry(self, split: Split, entry: str, base: str | None) -> list[str]:
        place: dict[str, Any] = {"file": self._yaml, "value": entry}
        target = self._find(entry, base)
        if target is not None:
            return self._pictures(target)
        if self._escapes(entry, base):
            self._report.add(
                "error",
                "SPLIT_ESCAPES",
                f"{split}: the path leaves the dataset",
                fix="use a path inside",
                **place,
            )
        else:
            self._report.add(
                "error",
                "SPLIT_NOT_FOUND",
                f"{split}: no such folder or list in the archive",
                fix="pack the pictures with the data.yaml, in the folder it names",
                **place,
            )
        return []

    def _find(self, entry: str, base: str | None) -> str | None:
        """Return the folder, list or picture an entry means, trying the readings people rely on."""
        if _is_absolute(entry):
            return self._find_tail(entry)
        for candidate in self._readings(entry, base):
            if candidate is not None and self._exists(candidate):
                return candidate
        return None

    def _readings(self, entry: str, base: str | None) -> list[str | None]:
        relative = entry.removeprefix("../")
        readings = [_join(self._root, entry), _join(self._root, relative)]
        if base and not _is_absolute(base):
            readings = [_join(self._root, base, entry), _join(self._root, base, relative), *readings]
        return readings

    def _find_tail(self, entry: str) -> str | None:
        parts = [part for part in entry.split("/") if part and part != ".."]
        for start in range(1, len(parts)):
            candidate = _join(self._root, *parts[start:])
            if candidate is not None and self._exists(candidate):
                self._report.add(
                    "warning",
                    "SPLIT_ABSOLUTE",
                    f"an absolute path was taken as {candidate!r} inside the archive",
                    file=self._yaml,
                    value=entry,
                    fix="use relative paths",
                )
                return candidate
        return None

    def _escapes(self, entry: str, base: str | None) -> bool:
        if _is_absolute(entry):
            return False
        readings = self._readings(entry, base)
        return any(reading is None for reading in readings) if base else readings[-1] is None

    def _exists(self, name: str) -> bool:
        return name in self._tree.folders or name in self._images or name in self._contents.texts

    def _pictures(self, target: str) -> list[str]:
        if target in self._images:
            return [target]
        if target in self._contents.texts:
            return self._listed(target)
        return self._tree.below(target)

    def _listed(self, list_name: str) -> list[str]:
        text = self._contents.texts[list_name].decode("utf-8-sig", errors="replace")
        found: list[str] = []
        for number, line in enumerate(text.splitlines(), start=1):
            path = line.strip().replace("\\", "/")
            if not path:
                continue
            name = self._listed_picture(path, posixpath.dirname(list_name))
            if name is None:
                self._report.add(
                    "warning",
                    "LISTED_IMAGE_MISSING",
                    "the list names a picture that is not in the archive",
                    file=list_name,
                    line=number,
                    value=path,
                )
            else:
                found.append(name)
        return found

    def _listed_picture(self, path: str, list_folder: str) -> str | None:
        if _is_absolute(path):
            parts = [part for part in path.split("/") if part]
            readings = [_join(self._root, *parts[start:]) for start in range(1, len(parts))]
        else:
            readings = [_join(list_folder, path), _join(self._root, path)]
        return next((name for name in readings if name is not None and name in self._images), None)


def _is_absolute(path: str) -> bool:
    return path.startswith("/") or path[1:2] == ":"


def _join(*parts: str) -> str | None:
    """Join and normalise a path inside the archive; None when it leaves the archive."""
    path = posixpath.normpath(posixpath.join("", *parts)) if any(parts) else "."
    if path == ".." or path.startswith(("../", "/")):
        return None
    return "" if path == "." else path


def missing_splits(splits: Mapping[Split, tuple[str, ...]], report: Report, place: str | None) -> None:
    """Report the splits a training cannot do without, and pictures that are in more than one split."""
    for split in ("train", "val"):
        if not splits.get(split):
            report.add(
                "error",
                "SPLIT_EMPTY",
                f"the dataset has no pictures for {split}",
                file=place,
                fix=f"add a {split} folder with pictures",
            )
    seen: dict[str, Split] = {}
    for split in SPLITS:
        for name in splits.get(split, ()):
            other = seen.setdefault(name, split)
            if other != split:
                report.add(
                    "warning",
                    "SPLIT_LEAK",
                    f"the picture is in {other} and in {split}: the measured accuracy will be too good",
                    file=name,
                    fix="keep the splits apart",
                )
