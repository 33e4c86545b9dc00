"""Divides pictures into splits where an archive names none, the same way each time it is uploaded.

A picture's place follows from its name alone, so adding pictures never moves the others. No labels here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping

from worker.ingest.report import Report
from yolocore.spec.dataset import SPLITS, Split
from yolocore.spec.imports import SplitShares

_WORD = re.compile(r"(?<![a-z])(train|training|val|valid|validation|test|testing)(?![a-z])")


def split_word(text: str) -> Split | None:
    """Return the split a file's or folder's name speaks of; None where it is none or more than one."""
    found: set[Split] = set()
    for word in _WORD.findall(text.lower()):
        found.add("train" if word.startswith("train") else "val" if word.startswith("val") else "test")
    return found.pop() if len(found) == 1 else None


def split_of_path(path: str) -> Split | None:
    """Return the split named by a path: its last part, else the nearest folder that names one."""
    for part in reversed(path.split("/")):
        split = split_word(part)
        if split is not None:
            return split
    return None


def divide(
    pictures: Iterable[str], root: str, shares: SplitShares, report: Report, *, place: str | None = None
) -> dict[Split, tuple[str, ...]]:
    """Divide pictures by a hash of their names below `root` and say so; two or more give train and val one.

    A picture goes by the first 64 bits of the SHA-256 of its name, as a fraction, compared with the shares.
    """
    prefix = f"{root}/" if root else ""
    draws = {name: _fraction(name.removeprefix(prefix)) for name in set(pictures)}
    order = sorted(draws, key=lambda name: (draws[name], name))
    assigned: dict[str, Split] = {}
    for name in order:
        if draws[name] < shares.train:
            assigned[name] = "train"
        else:
            assigned[name] = "val" if draws[name] < shares.train + shares.val or not shares.test else "test"
    if len(order) > 1:
        _fill(order, assigned)
    splits = _by_split(assigned)
    counts = ", ".join(f"{len(names)} {split}" for split, names in splits.items() if names)
    report.add(
        "info",
        "SPLITS_MADE",
        f"no splits are named; the pictures were divided by a hash of their names: {counts or 'none'}",
        file=place,
        value=f"{shares.train:g}/{shares.val:g}/{shares.test:g}",
        fix="choose other shares, or name the splits in the archive",
    )
    return splits


def _fraction(name: str) -> float:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _fill(order: list[str], assigned: dict[str, Split]) -> None:
    """Give train the lowest draw and val the highest, where they would have none."""
    if "train" not in assigned.values():
        assigned[order[0]] = "train"
    if "val" not in assigned.values():
        assigned[order[-1]] = "val"


def _by_split(assigned: Mapping[str, Split]) -> dict[Split, tuple[str, ...]]:
    return {
        split: tuple(sorted(name for name, where in assigned.items() if where == split)) for split in SPLITS
    }
