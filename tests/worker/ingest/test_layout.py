"""Which picture goes where: the folder layouts people ship, and what the report says about odd ones."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from worker.ingest import names
from worker.ingest.limits import Limits
from worker.ingest.report import MAX_ENTRIES_PER_CODE, Report
from worker.ingest.run import ingest_archive

NAMES = b"names: [cat, dog]\n"


def picture(seed: int) -> bytes:
    """Return a small picture that differs with the seed."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (16, 16, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def judged(files: dict[str, bytes], tmp_path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Zip and ingest files; return the result and the problems."""
    with zipfile.ZipFile(tmp_path / "up.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    result = ingest_archive(tmp_path / "up.zip", tmp_path, Limits())
    return result, json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["problems"]


LABEL = b"0 0.5 0.5 0.5 0.5\n"
LAYOUTS: dict[str, dict[str, bytes]] = {
    "images before split": {
        "data.yaml": b"train: images/train\nval: images/val\n" + NAMES,
        "images/train/a.png": picture(1),
        "labels/train/a.txt": LABEL,
        "images/val/b.png": picture(2),
        "labels/val/b.txt": LABEL,
    },
    "split before images": {
        "data.yaml": b"train: ../train/images\nval: ../valid/images\n" + NAMES,
        "train/images/a.png": picture(1),
        "train/labels/a.txt": LABEL,
        "valid/images/b.png": picture(2),
        "valid/labels/b.txt": LABEL,
    },
    "one folder above, named by path": {
        "set/data.yaml": b"path: ../set\ntrain: images/train\nval: images/val\n" + NAMES,
        "set/images/train/a.png": picture(1),
        "set/labels/train/a.txt": LABEL,
        "set/images/val/b.png": picture(2),
        "set/labels/val/b.txt": LABEL,
    },
    "names as mapping, lists of entries": {
        "data.yaml": b"train: [images/x, images/y]\nval: [images/val]\nnames: {0: cat, 1: dog}\n",
        "images/x/a.png": picture(1),
        "labels/x/a.txt": LABEL,
        "images/val/b.png": picture(2),
        "labels/val/b.txt": LABEL,
        "images/y/c.png": picture(3),
    },
    "classes.txt and no yaml": {
        "set/classes.txt": b"cat\ndog\n",
        "set/images/train/a.png": picture(1),
        "set/labels/train/a.txt": LABEL,
        "set/images/val/b.png": picture(2),
        "set/labels/val/b.txt": LABEL,
    },
    "labels beside pictures": {
        "data.yaml": b"train: train\nval: val\n" + NAMES,
        "train/a.png": picture(1),
        "train/a.txt": LABEL,
        "val/b.png": picture(2),
        "val/b.txt": LABEL,
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_recognised(layout: str, tmp_path: Path) -> None:
    result, problems = judged(LAYOUTS[layout], tmp_path)
    assert result["status"] == "ready", problems
    assert result["classes"] == ["cat", "dog"]
    assert result["splits"]["train"] in (1, 2) and result["splits"]["val"] == 1
    assert result["num_boxes"] == 2


def test_a_test_folder_the_yaml_forgot_is_taken(tmp_path: Path) -> None:
    files = LAYOUTS["split before images"] | {"test/images/t.png": picture(7)}
    result, problems = judged(files, tmp_path)
    assert result["splits"]["test"] == 1
    assert ("TEST_SPLIT_FOUND", "info") in [(p["code"], p["severity"]) for p in problems]
    assert not result["warnings"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"labels/train/orphan.txt": LABEL}, "LABEL_WITHOUT_IMAGE"),
        ({"images/val/copy.png": picture(1)}, "SPLIT_LEAK"),
        ({"images/train/copy.png": picture(1)}, "IMAGE_DUPLICATE"),
        ({"elsewhere/x.png": picture(8)}, "IMAGES_UNUSED"),
        ({"images/train/tiny.png": b""}, "IMAGE_EMPTY"),
        ({"labels/train/a.txt": b"0 0.5 0.5 1.5 0.5\n" + LABEL}, "LABEL_ABOVE_ONE"),
    ],
)
def test_oddities_are_said_and_do_not_stop(change: dict[str, bytes], code: str, tmp_path: Path) -> None:
    result, problems = judged(LAYOUTS["images before split"] | change, tmp_path)
    assert result["status"] == "ready"
    assert code in {p["code"] for p in problems}


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({"a.png": picture(1)}, "YAML_MISSING"),
        ({"x.txt": LABEL}, "NO_IMAGES"),
        ({"one.yaml": NAMES, "two.yaml": NAMES, "a.png": picture(1)}, "YAML_AMBIGUOUS"),
        ({"a.png": picture(1), "instances.json": b"{}"}, "FORMAT_NOT_RECOGNISED"),
        ({"classes.txt": b"\n", "images/train/a.png": picture(1)}, "NAMES_EMPTY"),
        ({"classes.txt": b"cat\n", "images/train/a.png": picture(1)}, "SPLIT_EMPTY"),
    ],
)
def test_what_cannot_be_a_dataset_is_refused_with_a_reason(
    files: dict[str, bytes], code: str, tmp_path: Path
) -> None:
    result, problems = judged(files, tmp_path)
    assert result["status"] == "invalid"
    assert code in {p["code"] for p in problems if p["severity"] == "error"}
    assert not (tmp_path / "manifest.json").exists()


LONG = "x" * 257


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("classes.txt", f"cat\n\n {LONG} \n", 3),
        ("data.yaml", f"train: images/train\nval: images/val\nnames:\n- cat\n- {LONG}\n", 5),
    ],
)
def test_a_class_name_too_long_is_named_with_its_place(
    name: str, content: str, line: int, tmp_path: Path
) -> None:
    files = {name: content.encode(), "images/train/a.png": picture(1), "images/val/b.png": picture(2)}
    result, problems = judged(files, tmp_path)
    assert result["status"] == "invalid"
    [entry] = [problem for problem in problems if problem["severity"] == "error"]
    assert (entry["code"], entry["file"], entry["line"]) == ("DATA_NAMES", name, line)
    assert entry["value"].startswith("xxx")


def test_statistics_add_up(tmp_path: Path) -> None:
    result, _ = judged(LAYOUTS["images before split"], tmp_path)
    found = json.loads((tmp_path / "statistics.json").read_text(encoding="utf-8"))
    assert found["num_images"] == result["num_images"] == 2
    assert found["classes"][0] == {"name": "cat", "boxes": 2, "images": 2}
    assert sum(map(sum, found["heat_map"])) == sum(found["box_width"]) == result["num_boxes"]
    assert found["splits"]["train"] == {"images": 1, "backgrounds": 0, "boxes": 1}


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/train/a.jpg", "labels/train/a.txt"),
        ("train/images/a.b.jpg", "train/labels/a.b.txt"),
        ("images/images/a.png", "images/labels/a.txt"),
        ("train/a.jpg", "train/a.txt"),
        ("images.jpg", "images.txt"),
    ],
)
def test_label_paths(image: str, label: str) -> None:
    assert names.label_path(image) == label


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/a",
        "../a",
        "a/../../b",
        "..\\a",
        "C:/a",
        "c:a",
        "a\0b",
        "a\nb",
        "x" * 256,
        "/".join("d" * 40),
        "\udcff",
    ],
)
def test_unsafe_names(name: str) -> None:
    assert names.unsafe_reason(name, Limits()) is not None


@pytest.mark.parametrize(
    "name", ["a..b/c", "images/train/..x.jpg", "--config=x.jpg", "a b;rm.png", "日本/a.png"]
)
def test_safe_names(name: str) -> None:
    assert names.unsafe_reason(name, Limits()) is None


def test_a_report_is_bounded_and_still_counts() -> None:
    report = Report()
    for number in range(MAX_ENTRIES_PER_CODE + 50):
        report.add("warning", "LABEL_ABOVE_ONE", "too large", line=number)
    report.add("error", "NO_BOXES", "none")
    entries = report.entries()
    assert len(entries) == MAX_ENTRIES_PER_CODE + 1 and report.truncated
    assert entries[0]["code"] == "NO_BOXES"
    assert sum(entry["count"] for entry in entries) == MAX_ENTRIES_PER_CODE + 51
