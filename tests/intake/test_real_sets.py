"""The real datasets, in every form in which they lie there, become what their authors counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.shared import datasets_dir, folder
from worker.ingest.limits import Limits
from worker.ingest.run import ingest_archive

# Pictures of each split (one number where the archive names none), boxes, classes; by the longest prefix.
COUNTS: dict[str, tuple[tuple[int, ...], int | None, int]] = {
    "bccd": ((205, 87, 72), 4886, 3),
    "aquarium": ((448, 127, 63), 4815, 7),
    "fruits_nuts": ((18,), 165, 3),
    "bccd_mini": ((24, 8, 0), None, 3),
    "aquarium_mini": ((32, 12, 0), None, 7),
}


def _archives() -> list[Any]:
    root = folder("TRAINSHED_DATASETS", "datasets")
    names = sorted(path.name for path in root.iterdir() if path.is_file()) if root else []
    return [pytest.param(name, id=name) for name in names] or [pytest.param(None, id="absent")]


@pytest.mark.parametrize("name", _archives())
def test_a_real_set_has_its_known_counts(name: str | None, tmp_path: Path) -> None:
    root = datasets_dir()
    assert name is not None
    result = ingest_archive(root / name, tmp_path, Limits())
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    prefix = max((key for key in COUNTS if name.startswith(key)), key=len, default=None)
    if prefix is None:
        assert result["status"] in ("ready", "invalid")
        assert result["status"] == "ready" or report["problems"]
        return
    pictures, num_boxes, num_classes = COUNTS[prefix]
    assert result["status"] == "ready", report["problems"]
    assert result["errors"] == 0
    splits = tuple(result["splits"][split] for split in ("train", "val", "test"))
    if len(pictures) == 1:
        assert sum(splits) == pictures[0] and min(splits[:2]) >= 1
        assert "SPLITS_MADE" in {problem["code"] for problem in report["problems"]}
    else:
        assert splits == pictures
    assert result["num_classes"] == num_classes
    assert num_boxes is None or result["num_boxes"] == num_boxes


def test_outlines_of_a_real_set_fit_their_boxes(tmp_path: Path) -> None:
    archives = sorted(datasets_dir().glob("*coco*"))
    if not archives:
        pytest.skip("no COCO set is there")
    ingest_archive(archives[0], tmp_path, Limits())
    manifest = json.loads((tmp_path / "manifest.json").read_bytes())
    outlines = 0
    for image in manifest["images"]:
        pairs = zip(image["rows"], image.get("polygons") or [None] * len(image["rows"]), strict=True)
        for (_, x, y, w, h), polygon in pairs:
            if polygon is None:
                continue
            outlines += 1
            xs, ys = zip(*polygon, strict=True)
            found = (min(xs), min(ys), max(xs), max(ys))
            assert found == pytest.approx((x - w / 2, y - h / 2, x + w / 2, y + h / 2), abs=0.01)
    assert outlines == 165
