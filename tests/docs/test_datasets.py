"""The page on datasets says what the code does: every code of the report and of HTTP, limits, settings."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path

from api.domain.settings import MIB, Settings
from tests.support.shared import ROOT
from worker.ingest import likeness, thumbnails, voc
from worker.ingest.limits import Limits
from worker.ingest.report import MAX_ENTRIES, MAX_ENTRIES_PER_CODE
from yolocore.spec import data_yaml
from yolocore.spec.imports import ImportOptions, SplitShares

PAGE = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")
CODE = re.compile(r"[A-Z]+(_[A-Z0-9]+)+\Z")
SEVERITIES = ("error", "warning", "info")

# Where entries of a dataset's report come from; not from `yamlsafe`, by which only model YAMLs are read.
INGEST = sorted((ROOT / "worker" / "ingest").glob("*.py"))
SPEC = [ROOT / "yolocore" / "spec" / f"{name}.py" for name in ("labels", "data_yaml", "dataset")]
# Boxes without area are always tidied away here; what a manifest refuses has the code of the error's class.
NEVER_REPORTED = {"LABEL_NO_AREA", "MANIFEST_INVALID"}
OF_THE_CLASS = {"DATASET_INVALID"}

DOMAIN = [ROOT / "api" / "domain" / f"{name}.py" for name in ("datasets", "uploads")]
OVER_HTTP = [*(ROOT / "api" / "uploads").glob("*.py"), *(ROOT / "api" / "datasets").glob("*.py"), *DOMAIN]
NO_CODES = {"HEAD_BYTES"}
# Codes shared with other addresses, or met by a job because of its dataset, and where each is from.
SHARED = {
    "REQUEST_INVALID": "api/errors.py",
    "STORAGE_FULL": "api/errors.py",
    "BAD_CURSOR": "api/domain/errors.py",
    "DATASET_INVALID": "api/domain/failures.py",
    "DATASET_NOT_CONFIRMED": "api/domain/jobs.py",
}


def section(title: str) -> str:
    """Return the text below a heading."""
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """Return the cells of every table row that begins with a code or name."""
    found = re.findall(r"^\| (`[^`]+` \| .*) \|$", text, re.MULTILINE)
    return [[cell.strip("` ") for cell in row.split(" | ")] for row in found]


def codes(paths: Iterable[Path]) -> set[str]:
    """Return every text in some sources that has the form of a code."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in paths]
    constants = [node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return {value for value in constants if isinstance(value, str) and CODE.match(value)}


def number(text: str) -> int:
    return int(text.replace(",", ""))


def test_every_code_of_the_report_is_explained_and_no_other() -> None:
    told = {row[0] for row in rows(section("Codes of the report"))}
    assert told == (codes([*INGEST, *SPEC]) | OF_THE_CLASS) - NEVER_REPORTED


def test_each_row_of_a_code_is_whole_and_stands_once() -> None:
    found = rows(section("Codes of the report"))
    keys = [(row[0], row[1]) for row in found]
    assert len(keys) == len(set(keys))
    for row in found:
        assert len(row) == 5 and all(row) and row[1] in SEVERITIES, row
        assert (row[1] == "error") == (row[3] in ("refused", "invalid")), row


def added(path: Path) -> set[tuple[str, str]]:
    """Return severity and code wherever both stand as texts in one call, `refuse` being an error."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call | ast.Yield):
            continue
        given = node.args if isinstance(node, ast.Call) else getattr(node.value, "elts", [])
        texts = [arg.value for arg in given if isinstance(arg, ast.Constant)]
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "refuse":
            texts = ["error", *texts]
        if len(texts) > 1 and texts[0] in SEVERITIES and CODE.match(str(texts[1])):
            found.add((str(texts[1]), str(texts[0])))
    return found


def test_the_severities_are_those_of_the_code() -> None:
    told = {(row[0], row[1]) for row in rows(section("Codes of the report"))}
    used = set().union(*(added(path) for path in INGEST))
    assert len(used) > 60
    assert {key for key in used if key[0] not in NEVER_REPORTED} <= told


def test_every_code_over_http_is_explained_and_no_other() -> None:
    found = rows(section("Codes over HTTP"))
    told = [row[0] for row in found]
    assert len(told) == len(set(told))
    assert set(told) == (codes(OVER_HTTP) | set(SHARED)) - NO_CODES
    assert all(len(row) == 4 and re.fullmatch("4[0-9]{2}|507", row[1]) for row in found)
    for code, source in SHARED.items():
        assert code in codes([ROOT / source]), source


def test_the_settings_exist_and_have_these_defaults() -> None:
    fields = Settings.model_fields
    units = {"GiB": 1024 * MIB, "one day": 86400, "one hour": 3600, "no limit": None}
    found = rows(section("Settings"))
    assert len(found) > 8
    for name, _, default in found:
        field = fields[name.removeprefix("TRAINSHED_").lower()]
        if default.endswith(" GiB"):
            assert field.default == number(default.split()[0]) * units["GiB"], name  # type: ignore[operator]
        else:
            value = units[default] if default in units else float(default.replace(",", ""))
            assert field.default == value, name


def test_the_limits_are_those_of_the_code() -> None:
    told = {number(text) for text in re.findall(r"\| ([0-9,]+) \|$", section("Archives"), re.MULTILINE)}
    limits = Limits()
    mib = [limits.ratio_free_bytes, limits.max_text_bytes, limits.max_texts_bytes]
    mib += [limits.max_annotations_bytes, limits.max_image_bytes]
    assert told == {
        *(size // MIB for size in mib),
        *(limits.max_ratio, limits.max_path_bytes, limits.max_path_depth, limits.max_classes),
        *(data_yaml.MAX_BYTES // 1024, limits.max_image_pixels // 1_000_000, voc.MAX_OBJECTS),
    }
    assert f"at least {limits.min_image_side} pixels on both sides" in PAGE


def test_the_options_and_other_numbers_are_those_of_the_code() -> None:
    options = [row[0] for row in rows(section("Sending"))]
    assert set(options) == set(ImportOptions.model_fields) and len(options) == len(set(options))
    assert SplitShares() == SplitShares(train=0.8, val=0.2, test=0) and "shares are 80/20/0" in PAGE
    words = " ".join(PAGE.split())
    assert f"At most {MAX_ENTRIES_PER_CODE} entries of a code and {MAX_ENTRIES:,} in all" in words
    assert f"in at most {likeness.MAX_BITS} bits" in words
    assert f"at most {likeness.MAX_GREY:g} of 255" in words
    assert f"Above {thumbnails.MAX_THUMBNAILS:,} pictures no thumbnails" in words
