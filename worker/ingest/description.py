"""Chooses the file that describes the dataset and turns it into a layout, or says which file is missing.

The meaning of data.yaml is in the spec; here is only which of several files counts, and its encoding.
"""

from __future__ import annotations

import posixpath

from worker.ingest.collect import Contents
from worker.ingest.layout import Layout, SplitResolver, Tree, guess_splits, missing_splits
from worker.ingest.limits import Limits
from worker.ingest.report import Report
from yolocore.errors import DatasetError
from yolocore.spec.data_yaml import parse_data_yaml
from yolocore.spec.dataset import SPLITS, Split

_YAML_NAMES = ("data.yaml", "data.yml")
_CLASS_FILES = ("classes.txt", "obj.names")


def describe(contents: Contents, limits: Limits, report: Report) -> Layout | None:
    """Return names and splits of the dataset; None when they cannot be known (the report says why)."""
    tree = Tree(list(contents.images))
    yaml_name = _choose_yaml(contents, report)
    if yaml_name is None:
        return _from_class_file(contents, tree, report)
    try:
        described = parse_data_yaml(contents.yamls[yaml_name], source=yaml_name)
    except DatasetError as error:
        _report_yaml(error, yaml_name, report)
        return None
    for note in described.notes:
        report.add("warning", note.code, note.message, file=yaml_name, line=note.line, value=note.value)
    if len(described.names) > limits.max_classes:
        report.add("error", "TOO_MANY_CLASSES", f"{len(described.names)} classes", file=yaml_name)
        return None
    resolver = SplitResolver(contents, tree, yaml_name, report)
    splits: dict[Split, tuple[str, ...]] = {}
    before = report.count("error")
    for split in SPLITS:
        if entries := described.entries(split):
            splits[split] = resolver.resolve(split, entries, described.path or None)
    root = posixpath.dirname(yaml_name)
    if "test" not in splits and "test" in (guessed := guess_splits(tree, root)):
        used = {name for names in splits.values() for name in names}
        splits["test"] = tuple(name for name in guessed["test"] if name not in used)
        report.add(
            "info", "TEST_SPLIT_FOUND", "not named in the file, but there is a test folder", file=yaml_name
        )
    if report.count("error") > before:
        return None
    missing_splits(splits, report, yaml_name)
    return Layout(tuple(described.names), root, splits)


def _choose_yaml(contents: Contents, report: Report) -> str | None:
    """Pick data.yaml nearest to the top, else the only YAML there is."""
    by_depth = sorted(contents.yamls, key=lambda name: (name.count("/"), name))
    named = [name for name in by_depth if posixpath.basename(name).lower() in _YAML_NAMES]
    if not named and len(by_depth) > 1:
        report.add(
            "error",
            "YAML_AMBIGUOUS",
            f"no data.yaml, and {len(by_depth)} other YAML files",
            file=by_depth[0],
            fix="call the one that describes the dataset data.yaml",
        )
        return None
    chosen = next(iter(named or by_depth), None)
    for name in by_depth:
        if name != chosen:
            report.add(
                "warning", "YAML_IGNORED", f"{chosen} describes the dataset; this file is ignored", file=name
            )
    return chosen


def _decode(content: bytes, name: str, report: Report) -> str | None:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        report.add(
            "error",
            "CLASSES_ENCODING",
            "the file is not UTF-8 text",
            file=name,
            line=content.count(b"\n", 0, error.start) + 1,
            value=f"byte {error.start}",
            fix="save it as UTF-8",
        )
        return None


def _report_yaml(error: DatasetError, name: str, report: Report) -> None:
    if not error.problems:
        report.add("error", error.code, error.message, file=name, value=error.value)
    for problem in error.problems:
        report.add("error", problem.code, problem.message, file=name, line=problem.line, value=problem.value)


def _from_class_file(contents: Contents, tree: Tree, report: Report) -> Layout | None:
    """Read names from classes.txt and guess the splits; without either say what was looked for."""
    if report.count("error"):
        return None
    found = sorted(
        (name for name in contents.texts if posixpath.basename(name).lower() in _CLASS_FILES),
        key=lambda name: (name.count("/"), name),
    )
    if not found:
        _report_unknown_format(contents, report)
        return None
    text = _decode(contents.texts[found[0]], found[0], report)
    if text is None:
        return None
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not names:
        report.add("error", "NAMES_EMPTY", "the file names no class", file=found[0])
        return None
    root = next((r for r in _roots(found[0]) if guess_splits(tree, r)), "")
    report.add(
        "warning", "CLASSES_INFERRED", f"no data.yaml; {len(names)} classes read from here", file=found[0]
    )
    splits = guess_splits(tree, root)
    missing_splits(splits, report, None)
    return Layout(names, root, splits)


def _roots(name: str) -> list[str]:
    """Return the folders above a file, nearest first, ending with the archive's top."""
    folders: list[str] = []
    while name:
        name = posixpath.dirname(name)
        folders.append(name)
    return folders


def _report_unknown_format(contents: Contents, report: Report) -> None:
    if contents.annotations:
        report.add(
            "error",
            "FORMAT_NOT_RECOGNISED",
            "no data.yaml, but COCO or VOC annotations; only the YOLO layout is read",
            file=min(contents.annotations),
            fix="export the dataset in the YOLO format",
        )
    else:
        report.add(
            "error",
            "YAML_MISSING",
            "the archive holds no data.yaml and no classes.txt",
            fix="add a data.yaml with train, val and names",
        )
