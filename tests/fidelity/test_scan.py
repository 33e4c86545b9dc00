"""Scan of a YOLO folder: what is kept, labels, sizes, counters.

Files with a bad row are compared by what we do on purpose: the picture stays, the row is dropped and reported
with its line. A tail after a JPEG's end is only reported; nothing on disk is rewritten.
"""

from __future__ import annotations

import zipfile
from collections import defaultdict
from pathlib import Path

import pytest

from tests.fidelity.harness import Case, assert_close, cases
from yolocore.data.files import rows_array
from yolocore.data.scan import scan_images
from yolocore.errors import Problem

BAD_ROW = {
    "wrong_column_count": "LABEL_COLUMNS",
    "negative_value": "LABEL_NEGATIVE",
    "coordinate_above_1": "LABEL_ABOVE_ONE",
}
OTHER = {
    "duplicates_removed": {"LABEL_DUPLICATE"},
    "unreadable_or_truncated_picture": {"IMAGE_UNREADABLE", "IMAGE_TRUNCATED"},
    "picture_smaller_than_10px": {"IMAGE_TOO_SMALL"},
    "jpeg_restored_with_warning": {"IMAGE_TRAILING_BYTES"},
}


@pytest.mark.parametrize("case", cases("scan"), ids=str)
def test_scan(case: Case, tmp_path: Path) -> None:
    with zipfile.ZipFile(case.path.with_suffix(".zip")) as archive:
        archive.extractall(tmp_path)
    pictures = sorted(path for path in (tmp_path / "images").iterdir() if path.suffix != ".md")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    result = scan_images(pictures)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before

    bad_rows = check_outcomes(case, result.problems, tmp_path)
    images = {str(image.path.relative_to(tmp_path)): image for image in result.images}
    assert sorted(set(images) - bad_rows) == sorted(case.result["im_files"])
    assert bad_rows <= set(images)
    for name in case.result["im_files"]:
        image, expected = images[name], case.result["labels"][name]
        assert [image.width, image.height] == case.result["shapes_wh"][name]
        assert sum(row.polygon is not None for row in image.rows) == case.result["n_segments"][name]
        assert_close(rows_array(image.rows), rows_array(expected), 1e-6, name)
    found, missing, empty, corrupt, total = case.result["results_found_missing_empty_corrupt_total"]
    counts = (result.found, result.missing, result.empty, result.corrupt, result.total)
    assert counts == (found, missing, empty, corrupt - len(bad_rows), total)


def check_outcomes(case: Case, problems: list[Problem], root: Path) -> set[str]:
    """Compare the problems' codes with the outcomes in category words; return the files with a bad row."""
    codes: dict[str, set[str]] = defaultdict(set)
    for problem in problems:
        assert problem.file is not None
        stem = Path(problem.file).relative_to(root).with_suffix("").name
        if not problem.code.startswith("LABEL_LEAVES") and problem.code != "LABEL_NO_AREA":
            codes[stem].add(problem.code)
    bad_rows = set()
    for name, outcome in case.result["outcomes"]:
        words = outcome.removeprefix("rejected:").split(":")[0]
        stem = Path(name).stem
        if words in BAD_ROW:
            bad_rows.add(name)
            assert codes.pop(stem) == {BAD_ROW[words]}, name
        else:
            assert codes.pop(stem) <= OTHER[words], name
    assert not codes, "problems that the reference does not have"
    return bad_rows
