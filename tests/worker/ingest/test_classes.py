"""Classes renamed, merged and dropped at import, and what is said of names that do not exist."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.packing import judge, picture
from worker.ingest.classes import map_classes
from worker.ingest.report import Report

NAMES = ("cat", "dog", "cow", "bird")


@pytest.mark.parametrize(
    ("wanted", "names", "numbers"),
    [
        ({"dog": "hound"}, ("cat", "hound", "cow", "bird"), (0, 1, 2, 3)),
        ({"cow": "cat"}, ("cat", "dog", "bird"), (0, 1, 0, 2)),
        ({"cat": "animal", "bird": "animal"}, ("animal", "dog", "cow"), (0, 1, 2, 0)),
        ({"cat": None, "cow": None}, ("dog", "bird"), (None, 0, None, 1)),
        ({"cat": "dog", "dog": "cat"}, ("dog", "cat", "cow", "bird"), (0, 1, 2, 3)),
        ({"cat": "bird"}, ("bird", "dog", "cow"), (0, 1, 2, 0)),
    ],
)
def test_new_names_are_numbered_in_the_order_of_the_old(
    wanted: dict[str, str | None], names: tuple[str, ...], numbers: tuple[int | None, ...]
) -> None:
    report = Report()
    assert map_classes(NAMES, wanted, report) == (names, numbers)
    assert report.codes() == {"CLASSES_MAPPED"}


def test_unknown_names_are_errors_that_name_the_near_ones() -> None:
    report = Report()
    assert map_classes(NAMES, {"brid": "x", "cat": None, "zebra": "y"}, report) is None
    near, none = report.entries()
    assert (near["code"], near["value"]) == ("CLASS_UNKNOWN", "brid") and "bird" in near["message"]
    assert none["value"] == "zebra" and "cat, dog" in none["message"]


def test_dropping_every_class_is_refused() -> None:
    report = Report()
    assert map_classes(NAMES, dict.fromkeys(NAMES), report) is None
    assert report.codes() == {"NAMES_EMPTY"}


@given(st.dictionaries(st.sampled_from(NAMES), st.none() | st.sampled_from(("x", "cat", "bird"))))
def test_each_class_ends_as_what_was_asked(wanted: dict[str, str | None]) -> None:
    found = map_classes(NAMES, wanted, Report())
    if found is None:
        assert all(wanted.get(name, name) is None for name in NAMES)
        return
    names, numbers = found
    for old, number in zip(NAMES, numbers, strict=True):
        assert (None if number is None else names[number]) == wanted.get(old, old)
    assert sorted(set(numbers) - {None}) == list(range(len(names)))  # type: ignore[type-var]


def _yolo() -> dict[str, bytes]:
    return {
        "data.yaml": b"train: images/train\nval: images/val\nnames: [cat, dog, cow]\n",
        "images/train/a.png": picture(1),
        "labels/train/a.txt": b"0 0.5 0.5 0.5 0.5\n1 0.5 0.5 0.5 0.5\n2 0.5 0.5 0.2 0.2\n",
        "images/val/b.png": picture(2),
        "labels/val/b.txt": b"2 0.5 0.5 0.5 0.5\n",
    }


def _coco() -> dict[str, bytes]:
    files = {"train/a.png": picture(1), "val/b.png": picture(2)}
    categories = [{"id": i + 5, "name": name} for i, name in enumerate(("cat", "dog", "cow"))]
    rows = {
        "train": [(5, [10, 5, 20, 10]), (6, [10, 5, 20, 10]), (7, [16, 8, 8, 4])],
        "val": [(7, [10, 5, 20, 10])],
    }
    for split, name in (("train", "a.png"), ("val", "b.png")):
        content: dict[str, Any] = {
            "images": [{"id": 1, "file_name": name, "width": 40, "height": 20}],
            "annotations": [
                {"image_id": 1, "category_id": number, "bbox": box} for number, box in rows[split]
            ],
            "categories": categories,
        }
        files[f"{split}.json"] = json.dumps(content).encode()
    return files


@pytest.mark.parametrize("files", [_yolo(), _coco()], ids=["yolo", "coco"])
def test_classes_are_mapped_in_any_format(files: dict[str, bytes], tmp_path: Path) -> None:
    found = judge(files, tmp_path, classes={"dog": None, "cow": "cattle"})
    assert found.status == "ready", found.problems
    assert found.manifest["names"] == ["cat", "cattle"]
    assert sorted(row[0] for image in found.manifest["images"] for row in image["rows"]) == [0, 1, 1]
    assert found.entry("CLASS_ROWS_DROPPED")["value"] == "1"
    assert found.result["classes"] == ["cat", "cattle"]


@pytest.mark.parametrize("files", [_yolo(), _coco()], ids=["yolo", "coco"])
def test_boxes_that_become_the_same_are_one(files: dict[str, bytes], tmp_path: Path) -> None:
    found = judge(files, tmp_path, classes={"dog": "cat"})
    assert found.status == "ready", found.problems
    assert found.result["num_boxes"] == 3
    assert found.entry("LABEL_DUPLICATE")["severity"] == "warning"


def test_an_unknown_class_makes_the_import_invalid(tmp_path: Path) -> None:
    found = judge(_yolo(), tmp_path, classes={"catt": "x"})
    assert found.status == "invalid" and found.codes("error") == {"CLASS_UNKNOWN"}


@pytest.mark.parametrize(("chosen", "status"), [("coco", "ready"), ("yolo", "ready"), ("voc", "invalid")])
def test_the_chosen_format_is_read_and_no_other(chosen: str, status: str, tmp_path: Path) -> None:
    beside = {f"coco/{name}": content for name, content in _coco().items()}
    found = judge(_yolo() | beside, tmp_path, format=chosen)
    assert found.status == status
    if status == "ready":
        folders = {image["name"].split("/")[0] for image in found.manifest["images"]}
        assert folders == ({"train", "val"} if chosen == "coco" else {"images"})
    else:
        assert found.codes("error") == {"FORMAT_NOT_RECOGNISED"}
