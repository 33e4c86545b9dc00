"""Chooses what describes the dataset (YOLO, COCO or VOC) and turns it into a layout, or says what is missing.

The meaning of each format is elsewhere; here is only which of several files counts.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import replace

from worker.ingest.classes import map_classes
from worker.ingest.coco import MAX_NAME_CHARS, looks_like_coco, parse_coco
from worker.ingest.coco_layout import coco_layout, preferred
from worker.ingest.collect import Contents
from worker.ingest.layout import Layout, SplitResolver, Tree, guess_splits, missing_splits
from worker.ingest.limits import Limits
from worker.ingest.names import label_path, stem_path
from worker.ingest.pictures import Pictures
from worker.ingest.report import Report
from worker.ingest.splitting import divide
from worker.ingest.voc import VocFile, parse_voc
from worker.ingest.voc_layout import voc_layout
from yolocore.errors import DatasetError
from yolocore.spec.data_yaml import parse_data_yaml
from yolocore.spec.dataset import SPLITS, Split
from yolocore.spec.imports import ImportOptions

_YAML_NAMES = ("data.yaml", "data.yml")
_CLASS_FILES = ("classes.txt", "obj.names")
_VOC_FIXES = {
    "XML_SYNTAX": "export the annotation again",
    "XML_ENCODING": "save the file as UTF-8",
    "XML_NOT_SAFE": "leave out the document type",
    "LABEL_CLASS": "give every object a name",
    "LABEL_COLUMNS": "write xmin, ymin, xmax and ymax",
    "LABEL_NOT_A_NUMBER": "write plain decimal numbers",
    "VOC_SWAPPED": "write the upper left corner first",
}


_DEFAULTS = ImportOptions()


def describe(
    contents: Contents, limits: Limits, report: Report, options: ImportOptions = _DEFAULTS
) -> Layout | None:
    """Return names and splits of the dataset; None when they cannot be known (the report says why).

    The format is told by content: a data.yaml (or label files and a list of classes) is YOLO, else COCO's
    JSON, else VOC's XML. The bytes of JSON and XML files leave `contents` as they are read.
    """
    layout = _layout(contents, report, options)
    if layout is None:
        return None
    if len(layout.names) > limits.max_classes:
        report.add("error", "TOO_MANY_CLASSES", f"{len(layout.names)} classes, at most {limits.max_classes}")
        return None
    if not options.classes:
        return layout
    mapped = map_classes(layout.names, options.classes, report)
    return None if mapped is None else replace(layout, names=mapped[0], class_map=mapped[1])


def _layout(contents: Contents, report: Report, options: ImportOptions) -> Layout | None:
    wanted = options.format
    if wanted == "yolo" or (wanted is None and _is_yolo(contents)):
        return _yolo(contents, report, options)
    pictures = Pictures(contents.images)
    if wanted != "voc":
        recognised, layout = _coco(contents, pictures, report, options)
        if recognised:
            _ignore((*contents.xmls, *contents.yamls), report)
            return layout
    if wanted != "coco":
        recognised, layout = _voc(contents, pictures, report, options)
        if recognised:
            _ignore((*contents.jsons, *contents.yamls), report)
            return layout
    if wanted is not None:
        report.add(
            "error",
            "FORMAT_NOT_RECOGNISED",
            f"the archive holds no {wanted.upper()} annotations",
            fix="choose the format the archive has, or none",
        )
        return None
    return _yolo(contents, report, options)


def _is_yolo(contents: Contents) -> bool:
    """Tell whether the archive is YOLO beyond doubt: a data.yaml, or label files with something beside."""
    if any(posixpath.basename(name).lower() in _YAML_NAMES for name in contents.yamls):
        return True
    described = bool(contents.yamls) or bool(_class_files(contents))
    return described and any(label_path(name) in contents.texts for name in contents.images)


def _coco(
    contents: Contents, pictures: Pictures, report: Report, options: ImportOptions
) -> tuple[bool, Layout | None]:
    """Return whether there is COCO in the archive, and its layout unless a file of it is unreadable."""
    files, is_broken = [], False
    for name in preferred(sorted(n for n, content in contents.jsons.items() if looks_like_coco(content))):
        before = report.count("error")
        file = parse_coco(contents.jsons[name], name, report, keep_crowd=options.keep_crowd)
        is_broken |= file is None and report.count("error") > before
        if file is not None:
            files.append(file)
            del contents.jsons[name]
    if is_broken or not files:
        return is_broken, None
    _ignore(contents.jsons, report)
    return True, coco_layout(files, pictures, report, options)


def _voc(
    contents: Contents, pictures: Pictures, report: Report, options: ImportOptions
) -> tuple[bool, Layout | None]:
    """Return whether there is VOC in the archive, and its layout."""
    files: dict[str, VocFile] = {}
    for name in sorted(contents.xmls):
        file = parse_voc(contents.xmls[name])
        folder, base = posixpath.split(name)
        if file.is_voc or (file.problems and pictures.by_stem(stem_path(base), folder)):
            files[name] = file
            del contents.xmls[name]
    for name, file in files.items():
        for problem in file.problems:
            report.add(
                problem.severity,
                problem.code,
                problem.message,
                file=name,
                line=problem.line or None,
                value=problem.value or None,
                fix=_VOC_FIXES.get(problem.code),
            )
    if not files:
        return False, None
    _ignore(contents.xmls, report)
    return True, voc_layout(files, contents.texts, pictures, report, options)


def _ignore(names: Iterable[str], report: Report) -> None:
    for name in names:
        report.add(
            "info", "FILE_IGNORED", "it does not describe the dataset; the file was ignored", file=name
        )


def _yolo(contents: Contents, report: Report, options: ImportOptions) -> Layout | None:
    tree = Tree(list(contents.images))
    yaml_name = _choose_yaml(contents, report)
    if yaml_name is None:
        return _from_class_file(contents, tree, report, options)
    _ignore((*contents.jsons, *contents.xmls), report)
    try:
        described = parse_data_yaml(contents.yamls[yaml_name], source=yaml_name)
    except DatasetError as error:
        _report_yaml(error, yaml_name, report)
        return None
    for note in described.notes:
        report.add("warning", note.code, note.message, file=yaml_name, line=note.line, value=note.value)
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


def _class_files(contents: Contents) -> list[str]:
    """Return the lists of class names, the one nearest to the top first."""
    found = (name for name in contents.texts if posixpath.basename(name).lower() in _CLASS_FILES)
    return sorted(found, key=lambda name: (name.count("/"), name))


def _from_class_file(contents: Contents, tree: Tree, report: Report, options: ImportOptions) -> Layout | None:
    """Read names from classes.txt and guess the splits; without either say what was looked for."""
    if report.count("error"):
        return None
    found = _class_files(contents)
    if not found:
        _report_unknown_format(contents, report)
        return None
    _ignore((*contents.jsons, *contents.xmls), report)
    text = _decode(contents.texts[found[0]], found[0], report)
    if text is None:
        return None
    names = _listed_names(text, found[0], report)
    if names is None:
        return None
    if not names:
        report.add("error", "NAMES_EMPTY", "the file names no class", file=found[0])
        return None
    report.add(
        "warning", "CLASSES_INFERRED", f"no data.yaml; {len(names)} classes read from here", file=found[0]
    )
    roots = _roots(found[0])
    root = next((r for r in roots if guess_splits(tree, r)), None)
    if root is None:
        root = next((r for r in roots if tree.below(r)), "")
        splits = divide(tree.below(root), root, options.splits, report, place=found[0])
    else:
        splits = guess_splits(tree, root)
    missing_splits(splits, report, None)
    return Layout(names, root, splits)


def _listed_names(text: str, file: str, report: Report) -> tuple[str, ...] | None:
    """Return the names of a list, one a line; None where one is too long (the report says where)."""
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    before = report.count("error")
    for number, name in lines:
        if len(name) > MAX_NAME_CHARS:
            told = f"a class name is a text of 1 to {MAX_NAME_CHARS} characters"
            fix = "write one class a line, with a shorter name"
            report.add("error", "DATA_NAMES", told, file=file, line=number, value=name, fix=fix)
    return None if report.count("error") > before else tuple(name for _, name in lines if name)


def _roots(name: str) -> list[str]:
    """Return the folders above a file, nearest first, ending with the archive's top."""
    folders: list[str] = []
    while name:
        name = posixpath.dirname(name)
        folders.append(name)
    return folders


def _report_unknown_format(contents: Contents, report: Report) -> None:
    too_large = "ANNOTATIONS_TOO_LARGE" in report.codes()
    if contents.jsons or contents.xmls or too_large:
        report.add(
            "error",
            "FORMAT_NOT_RECOGNISED",
            "the annotations are too large to be read"
            if too_large
            else "no data.yaml, and the JSON or XML files are neither COCO nor Pascal VOC",
            file=min((*contents.jsons, *contents.xmls), default=None),
            fix="a COCO file has images, annotations and categories; a VOC file begins with <annotation>",
        )
    else:
        report.add(
            "error",
            "YAML_MISSING",
            "the archive holds no data.yaml, no classes.txt, and no COCO or VOC annotations",
            fix="add a data.yaml with train, val and names",
        )
