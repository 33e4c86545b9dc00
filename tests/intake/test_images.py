"""Every collected archive with an odd picture: what is said of it, and that its pixels are read as meant."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.shared import folder, intake_dir
from worker.ingest.limits import Limits
from worker.ingest.run import ingest_archive

# What the report must say, by case; pictures that are taken as they are have no entry of their own.
SAID = {
    "img_truncated": "IMAGE_DAMAGED",
    "img_no_eoi": "IMAGE_DAMAGED",
    "img_zero_bytes": "IMAGE_EMPTY",
    "img_text_as_jpg": "IMAGE_UNREADABLE",
    "img_html_as_jpg": "IMAGE_UNREADABLE",
    "img_png_text_bomb": "IMAGE_UNREADABLE",
    "img_png16_rgb": "IMAGE_16_BIT",
    "img_png16_gray": "IMAGE_16_BIT",
    "img_exif_rotated": "IMAGE_ROTATED",
    "img_animated_gif": "IMAGE_FIRST_FRAME",
    "img_tiff": "IMAGE_FIRST_FRAME",
}
# Cases whose pictures show the same as the control's, whatever their format.
SAME_LOOK = (
    "img_exif_bad",
    "img_exif_rotated",
    "img_palette",
    "img_png16_rgb",
    "img_progressive",
    "img_upper_ext",
    "img_webp",
)


def cases() -> list[str]:
    """Return the cases about pictures, by listing."""
    root = folder("TRAINSHED_INTAKE", "intake")
    if root is None:
        return []
    manifest = json.loads((root / "archives" / "manifest.json").read_text(encoding="utf-8"))
    return [case["id"] for case in manifest["cases"] if case["id"].startswith("img_")]


def judged(case: str, task_dir: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ingest a case; return the result and the problems."""
    task_dir.mkdir(parents=True, exist_ok=True)
    result = ingest_archive(intake_dir() / "archives" / f"{case}.zip", task_dir, Limits())
    return result, json.loads((task_dir / "report.json").read_bytes())["problems"]


@pytest.mark.parametrize("case", cases() or [pytest.param("", id="absent")])
def test_each_oddity_has_its_code_and_names_its_picture(case: str, tmp_path: Path) -> None:
    intake_dir()
    result, problems = judged(case, tmp_path)
    assert result["status"] == "ready" and result["files"]["thumbnails"]
    found = {entry["code"]: entry["file"] for entry in problems if entry["code"].startswith("IMAGE_")}
    if case in SAID:
        assert found[SAID[case]].startswith("images/")
    else:
        assert found.keys() <= {"IMAGE_SUFFIX"}


@pytest.mark.parametrize("case", SAME_LOOK)
def test_pixels_are_read_as_meant(case: str, tmp_path: Path) -> None:
    judged("ctl_good", tmp_path / "good")
    judged(case, tmp_path / case)
    good, odd = ((tmp_path / name / "thumbnails.zip") for name in ("good", case))
    with zipfile.ZipFile(good) as one, zipfile.ZipFile(odd) as other:
        assert one.namelist() == other.namelist()
        for name in one.namelist():
            pictures = [np.asarray(Image.open(io.BytesIO(z.read(name)))).astype(int) for z in (one, other)]
            assert pictures[0].shape == pictures[1].shape
            assert np.abs(pictures[0] - pictures[1]).mean() < 12
