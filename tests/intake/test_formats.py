"""What the collected VOC and COCO archives become: the objects of the good ones, and what mending leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.shared import intake_dir
from worker.ingest.limits import Limits
from worker.ingest.run import ingest_archive

Row = tuple[str, float, float, float, float]


def manifest_of(case_id: str, folder: Path) -> dict[str, Any]:
    """Ingest a collected archive and return its manifest."""
    result = ingest_archive(intake_dir() / "archives" / f"{case_id}.zip", folder / case_id, Limits())
    assert result["status"] == "ready"
    found: dict[str, Any] = json.loads((folder / case_id / "manifest.json").read_bytes())
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with one for each case the tests ask for."""
    for case_id in ("ctl_good", "voc_good", "voc_swapped", "voc_size_zero", "voc_out_of_image"):
        (tmp_path / case_id).mkdir()
    for case_id in ("voc_filename_traversal", "coco_negative_box", "coco_orphan_ann"):
        (tmp_path / case_id).mkdir()
    yield tmp_path


def boxes(manifest: dict[str, Any]) -> dict[str, list[Row]]:
    """Return the rows of each picture by its stem, classes by name, edges in pixels, sorted."""
    found = {}
    for image in manifest["images"]:
        w, h = image["width"], image["height"]
        rows = [
            (
                manifest["names"][cls],
                (x - bw / 2) * w,
                (y - bh / 2) * h,
                (x + bw / 2) * w,
                (y + bh / 2) * h,
            )
            for cls, x, y, bw, bh in image["rows"]
        ]
        found[Path(image["name"]).stem] = sorted(rows)
    return found


def assert_close(found: list[Row], expected: list[Row], tolerance_px: float) -> None:
    """Compare rows of one picture, whose order may differ where edges are almost equal."""
    assert len(found) == len(expected)
    rest = list(expected)
    for row in found:
        near = min(
            (other for other in rest if other[0] == row[0]),
            key=lambda other: max(abs(a - b) for a, b in zip(row[1:], other[1:], strict=True)),
        )
        assert max(abs(a - b) for a, b in zip(row[1:], near[1:], strict=True)) <= tolerance_px
        rest.remove(near)


def test_voc_holds_the_objects_of_the_control(folder: Path) -> None:
    control, voc = boxes(manifest_of("ctl_good", folder)), boxes(manifest_of("voc_good", folder))
    assert control.keys() == voc.keys()
    for stem, rows in control.items():
        # Whole pixels, counted from 1 although the archive's author rounded from 0.
        assert_close(voc[stem], rows, 1.6)


def test_coco_holds_the_objects_of_the_control(folder: Path) -> None:
    control, coco = boxes(manifest_of("ctl_good", folder)), boxes(manifest_of("coco_orphan_ann", folder))
    for stem, rows in control.items():
        if stem != "img00":  # one annotation of it was turned into an orphan
            assert_close(coco[stem], rows, 0.02)
    assert len(coco["img00"]) == len(control["img00"]) - 1


@pytest.mark.parametrize(
    ("case_id", "edges"),
    [
        ("voc_swapped", (19, 9, 90, 80)),
        ("voc_size_zero", (19, 9, 90, 80)),
        ("voc_out_of_image", (19, 9, 240, 80)),
        ("voc_filename_traversal", (19, 9, 90, 80)),
    ],
)
def test_a_mended_box_is_where_it_was_meant(case_id: str, edges: tuple[int, ...], folder: Path) -> None:
    ((name, *found),) = boxes(manifest_of(case_id, folder))["img00"]
    assert name == "fish" and found == pytest.approx(edges)


def test_a_negative_box_costs_itself_alone(folder: Path) -> None:
    control, coco = boxes(manifest_of("ctl_good", folder)), boxes(manifest_of("coco_negative_box", folder))
    assert sum(map(len, coco.values())) == sum(map(len, control.values())) - 1
