"""Finds the picture of an archive that an annotation file means, whatever folders it was written with.

Only names of the archive are ever returned, so a path in an annotation leads nowhere else.
"""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Iterable

from worker.ingest import names
from worker.ingest.splitting import split_of_path
from yolocore.spec.dataset import Split

_ANNOTATION_FOLDERS = frozenset({"annotations", "labels", "xml", "xmls"})


class Pictures:
    """The pictures of an archive by their last path part, with and without suffix."""

    def __init__(self, images: Iterable[str]) -> None:
        self._names = frozenset(images)
        self._by_base: dict[str, list[str]] = defaultdict(list)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        self._by_stem_path: dict[str, list[str]] = defaultdict(list)
        for name in sorted(self._names):
            self._by_base[posixpath.basename(name)].append(name)
            path = names.stem_path(name)
            self._by_stem[posixpath.basename(path)].append(name)
            self._by_stem_path[path].append(name)
        self._folders = sorted({posixpath.dirname(name) for name in self._names})
        # What was in front of the last path found by its end, by where it stood: with equal names in many
        # folders, looking through all of them for each would take the square of their number.
        self._prefixes: dict[tuple[str, Split | None], str] = {}
        self._sister_folders: dict[str, list[str]] = {}

    def by_path(self, path: str, folder: str, split: Split | None) -> list[str]:
        """Return the pictures a path may mean that stands in a file of `folder`, best kind of match only.

        One name is an answer, several are ambiguous, none is not found.
        """
        parts = [part for part in names.clean(path).split("/") if part not in ("", "..")]
        if not parts:
            return []
        tail = "/".join(parts)
        for place in (f"{folder}/" if folder else "", self._prefixes.get((folder, split))):
            if place is not None and place + tail in self._names:
                return [place + tail]
        candidates = self._by_base.get(parts[-1], [])
        ending = [name for name in candidates if name == tail or name.endswith(f"/{tail}")]
        found = _nearest(ending or candidates, folder, split)
        if len(found) == 1 and ending:
            self._prefixes[folder, split] = found[0].removesuffix(tail)
        return found

    def by_stem(self, stem: str, folder: str) -> list[str]:
        """Return the pictures of this stem for an annotation in `folder`, best kind of match only."""
        for place in (folder, *self._sisters(folder)):
            found = self._by_stem_path.get(f"{place}/{stem}" if place else stem)
            if found:
                return found
        return _nearest(self._by_stem.get(stem, []), folder, split_of_path(folder))

    def _sisters(self, folder: str) -> list[str]:
        """Return the folders of pictures where only the folder of annotations is called otherwise."""
        known = self._sister_folders.get(folder)
        if known is None:
            parts = folder.split("/") if folder else []
            marks = [i for i, part in enumerate(parts) if part.lower() in _ANNOTATION_FOLDERS]
            known = [
                other
                for index in reversed(marks)
                for other in self._folders
                if other != folder and _differs_at(other.split("/"), parts, index)
            ]
            self._sister_folders[folder] = known
        return known


def _differs_at(other: list[str], parts: list[str], index: int) -> bool:
    return (
        len(other) == len(parts)
        and other[:index] == parts[:index]
        and other[index + 1 :] == parts[index + 1 :]
    )


def _nearest(found: list[str], folder: str, split: Split | None) -> list[str]:
    """Prefer pictures below the file's own folder, then those whose folders name its split."""
    if len(found) < 2:
        return found
    found = [name for name in found if not folder or name.startswith(f"{folder}/")] or found
    if split is not None:
        found = [name for name in found if split_of_path(posixpath.dirname(name)) == split] or found
    return found
