"""Gives classes other names at import: rename, merge, drop; and says what was asked for in vain.

It works on lists of names and class numbers; where the names come from is none of its business.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from worker.ingest.report import Report

_NEAR = 3


def map_classes(
    names: Sequence[str], wanted: Mapping[str, str | None], report: Report
) -> tuple[tuple[str, ...], tuple[int | None, ...]] | None:
    """Return the new names and, for each old class number, its new one (None = dropped).

    New classes are numbered in the order in which they first appear among the old ones. Returns None, with
    an error in the report, where an old name does not exist or no class is left.
    """
    known = set(names)
    unknown = [name for name in wanted if name not in known]
    for name in unknown:
        near = difflib.get_close_matches(name, known, n=_NEAR, cutoff=0.5)
        hint = f"did you mean {', '.join(sorted(near))}?" if near else f"there are {_first(names)}"
        report.add(
            "error",
            "CLASS_UNKNOWN",
            f"the dataset has no class of this name; {hint}",
            value=name,
            fix="use the names as the archive has them, with the same capitals",
        )
    if unknown:
        return None
    new_names: dict[str, int] = {}
    numbers: list[int | None] = []
    for old in names:
        new = wanted.get(old, old)
        numbers.append(None if new is None else new_names.setdefault(new, len(new_names)))
    if not new_names:
        report.add("error", "NAMES_EMPTY", "every class would be dropped", fix="keep at least one class")
        return None
    report.add(
        "info",
        "CLASSES_MAPPED",
        f"{len(names)} classes became {len(new_names)} by the import's choices",
        value=", ".join(new_names),
    )
    return tuple(new_names), tuple(numbers)


def _first(names: Sequence[str]) -> str:
    shown = ", ".join(names[:8])
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8} more"
