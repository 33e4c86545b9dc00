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


class Pictures:
    """The pictures of an archive by their last path part, with and without suffix."""

    def __init__(self, images: Iterable[str]) -> None:
        self._by_base: dict[str, list[str]] = defaultdict(list)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for name in sorted(images):
            self._by_base[posixpath.basename(name)].append(name)
            self._by_stem[posixpath.basename(names.stem_path(name))].append(name)

    def by_path(self, path: str, folder: str, split: Split | None) -> list[str]:
        """Return the pictures a path may mean that stands in a file of `folder`, best kind of match only.

        One name is an answer, several are ambiguous, none is not found.
        """
        clean = names.clean(path)
        parts = [part for part in clean.split("/") if part != ".."]
        if not parts:
            return []
        candidates = self._by_base.get(parts[-1], [])
        tail = "/".join(parts)
        ending = [name for name in candidates if name == tail or name.endswith(f"/{tail}")]
        return _nearest(ending or candidates, folder, tail, split)

    def by_stem(self, stem: str, folder: str) -> list[str]:
        """Return the pictures of this stem for an annotation in `folder`, best kind of match only."""
        candidates = self._by_stem.get(stem, [])
        parts = folder.split("/") if folder else []
        for index in range(len(parts) - 1, -1, -1):
            if parts[index].lower() in ("annotations", "labels", "xml", "xmls"):
                sisters = [name for name in candidates if _is_sister(name, parts, index)]
                if sisters:
                    return sisters
        return _nearest(candidates, folder, stem, split_of_path(folder))


def _is_sister(name: str, parts: list[str], index: int) -> bool:
    """Tell whether a picture lies where only the folder of annotations is called otherwise."""
    folders = name.split("/")[:-1]
    return (
        len(folders) == len(parts)
        and folders[:index] == parts[:index]
        and folders[index + 1 :] == parts[index + 1 :]
    )


def _nearest(found: list[str], folder: str, tail: str, split: Split | None) -> list[str]:
    if len(found) < 2:
        return found
    here = f"{folder}/{tail}" if folder else tail
    exact = [name for name in found if name == here or names.stem_path(name) == here]
    if exact:
        return exact
    below = [name for name in found if not folder or name.startswith(f"{folder}/")]
    found = below or found
    if split is not None:
        found = [name for name in found if split_of_path(posixpath.dirname(name)) == split] or found
    return found
