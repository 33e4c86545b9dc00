"""One ingest as a whole: the files it leaves, what inspection leaves out, and what a task may ask."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.shared import ROOT
from worker.ingest import run as steps
from worker.ingest.run import ingest

NAMES = b"train: images/train\nval: images/val\nnames: [cat, dog]\n"
LABEL = b"0 0.5 0.5 0.5 0.5\n1 0.3 0.3 0.2 0.2\n"


def photo(seed: int, kind: str = "JPEG", size: tuple[int, int] = (320, 240), **options: Any) -> bytes:
    """Return a picture with shapes of its seed, not noise, which no two encodings would agree on."""
    coarse = np.random.default_rng(seed).integers(0, 255, (7, 9, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(buffer, kind, **options)
    return buffer.getvalue()


def files() -> dict[str, bytes]:
    """Return a small dataset with one oddity of each kind this is about."""
    found = {"data.yaml": NAMES}
    for number in range(6):
        found[f"images/train/{number}.jpg"] = photo(number)
        found[f"labels/train/{number}.txt"] = LABEL
    found["images/train/same.jpg"] = photo(0, quality=60)
    found["images/train/really.jpg"] = photo(40, "PNG")
    found["images/val/new.jpg"] = photo(50)
    found["labels/val/new.txt"] = LABEL
    found["images/val/leak.jpg"] = photo(1, size=(160, 120), quality=80)
    return found


def done(folder: Path, content: dict[str, bytes], **task: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ingest files by a task; return result and report."""
    with zipfile.ZipFile(folder / "up.zip", "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    written = {"archive": str(folder / "up.zip"), "name": "up.zip", "limits": {}} | task
    (folder / "task.json").write_text(json.dumps(written), encoding="utf-8")
    result = ingest(folder)
    assert result == json.loads((folder / "result.json").read_bytes())
    return result, json.loads((folder / "report.json").read_bytes())


def left(folder: Path) -> set[str]:
    """Return what lies in the folder, without what was put there."""
    return {path.name for path in folder.iterdir()} - {"up.zip", "task.json"}


def test_a_ready_dataset_leaves_all_files_and_says_what_was_seen(tmp_path: Path) -> None:
    result, report = done(tmp_path, files())
    assert result["status"] == report["status"] == "ready" and "inspected" not in result
    assert result["files"] == {"thumbnails": "thumbnails.zip", "page": "report.html"}
    assert left(tmp_path) == {
        "images",
        "manifest.json",
        "report.json",
        "report.html",
        "result.json",
        "statistics.json",
        "thumbnails.zip",
    }
    found = {(entry["code"], entry["severity"], entry["file"]) for entry in report["problems"]}
    assert ("SPLIT_LEAK_NEAR", "warning", "images/val/leak.jpg") in found
    assert ("IMAGE_NEAR_DUPLICATE", "info", "images/train/same.jpg") in found
    assert ("IMAGE_SUFFIX", "info", "images/train/really.jpg") in found
    assert ("FEW_IMAGES", "info", None) in found


def test_thumbnails_follow_the_manifest(tmp_path: Path) -> None:
    done(tmp_path, files())
    images = json.loads((tmp_path / "manifest.json").read_bytes())["images"]
    with zipfile.ZipFile(tmp_path / "thumbnails.zip") as archive:
        assert archive.namelist() == [f"{number:06}.jpg" for number in range(len(images))]
        for number, image in enumerate(images):
            with Image.open(io.BytesIO(archive.read(f"{number:06}.jpg"))) as small:
                assert max(small.size) == min(256, image["width"])


@pytest.mark.parametrize("content", [files(), files() | {"labels/train/0.txt": b"a b c d e\n"}])
def test_inspection_leaves_no_pictures(content: dict[str, bytes], tmp_path: Path) -> None:
    result, report = done(tmp_path, content, options={"inspect": True, "imgsz": 320})
    assert result["inspected"] is True
    assert "images" not in left(tmp_path) and "manifest.json" not in left(tmp_path)
    assert {"report.json", "report.html", "result.json"} <= left(tmp_path)
    if result["status"] == "ready":
        assert json.loads((tmp_path / "statistics.json").read_bytes())["imgsz"] == 320
        assert result["files"]["thumbnails"] and (tmp_path / "thumbnails.zip").is_file()
    assert report["summary"]["num_images"] == 10


def test_an_invalid_dataset_gets_a_page_with_its_problems(tmp_path: Path) -> None:
    result, _ = done(tmp_path, {"readme.txt": b"x"})
    assert result["status"] == "invalid"
    assert result["files"] == {"thumbnails": None, "page": "report.html"}
    assert "NO_IMAGES" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert left(tmp_path) <= {"images", "report.json", "report.html", "result.json"}


@pytest.mark.parametrize("options", [{"imgsz": 1}, {"unknown": 1}, {"splits": {"train": 2}}, [1]])
def test_bad_options_are_a_malformed_task(options: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="options"):
        done(tmp_path, files(), options=options)


def test_too_many_pictures_get_no_thumbnails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "MAX_THUMBNAILS", 5)
    result, report = done(tmp_path, files())
    assert result["status"] == "ready" and result["files"]["thumbnails"] is None
    assert "THUMBNAILS_LEFT_OUT" in {entry["code"] for entry in report["problems"]}
    assert "thumbnails.zip" not in left(tmp_path)
    assert "data:image" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_equal_archives_give_equal_files(tmp_path: Path) -> None:
    folders = [tmp_path / "1", tmp_path / "2"]
    for folder in folders:
        folder.mkdir()
        done(folder, files())
    for name in ("manifest.json", "report.json", "statistics.json", "report.html"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name


@pytest.mark.parametrize(("options", "code"), [({}, 0), ({"imgsz": "x"}, 70)])
def test_the_program_obeys_the_task_s_options(options: dict[str, Any], code: int, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "up.zip", "w") as archive:
        for name, data in files().items():
            archive.writestr(name, data)
    task = {"archive": str(tmp_path / "up.zip"), "options": options}
    (tmp_path / "task.json").write_text(json.dumps(task), encoding="utf-8")
    command = [sys.executable, "-P", "-m", "worker.ingest", str(tmp_path)]
    ended = subprocess.run(
        command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL, capture_output=True
    )
    assert ended.returncode == code, ended.stderr
