"""COCO as exporters write it: several files, odd ids, outlines, crowds, and every mistake with its id."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.packing import Judged, judge, picture
from worker.ingest.coco import looks_like_coco, parse_coco
from worker.ingest.coco_layout import coco_layout
from worker.ingest.limits import Limits
from worker.ingest.objects import rows_of
from worker.ingest.pictures import Pictures
from worker.ingest.report import Report
from yolocore.spec.imports import ImportOptions

Json = dict[str, Any]
CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}, {"id": 90, "name": "cow"}]


def image(number: int, name: str, size_wh: tuple[int, int] = (40, 20)) -> Json:
    """Return an item of `images`."""
    return {"id": number, "file_name": name, "width": size_wh[0], "height": size_wh[1]}


def annotation(number: int, picture_id: int, category: int = 3, **more: Any) -> Json:
    """Return an item of `annotations`, its box unless told otherwise x 4, y 2, 20 wide, 10 high."""
    return {"id": number, "image_id": picture_id, "category_id": category, "bbox": [4, 2, 20, 10]} | more


def coco(images: list[Json], annotations: list[Json], categories: Any = CATEGORIES, **more: Any) -> bytes:
    """Return a COCO file."""
    content = {"info": {"year": 2026}, "images": images, "annotations": annotations, "categories": categories}
    return json.dumps(content | more).encode()


def two(
    tmp_path: Path,
    *annotations: Json,
    images: list[Json] | None = None,
    categories: Any = CATEGORIES,
    **options: Any,
) -> Judged:
    """Judge a set of two pictures; annotation 100 makes sure that each has a box."""
    listed = images or [image(1, "a.png"), image(2, "b.png")]
    content = coco(listed, [annotation(100, 1), annotation(101, 2), *annotations], categories)
    files = {"images/a.png": picture(1), "images/b.png": picture(2), "annotations.json": content}
    return judge(files, tmp_path, **options)


def test_sparse_ids_are_numbered_in_their_order_and_told(tmp_path: Path) -> None:
    found = two(tmp_path, annotation(1, 1, 90, bbox=[0, 0, 40, 20]))
    assert found.status == "ready", found.problems
    assert found.manifest["names"] == ["cat", "dog", "cow"]
    assert found.edges("images/a.png") == [(0, [4, 2, 24, 12]), (2, [0, 0, 40, 20])]
    assert found.entry("CLASSES_RENUMBERED")["value"] == "3->0, 7->1, 90->2"
    assert not found.codes("error", "warning")


def _files(train: str, val: str, train_folder: str, val_folder: str, written: str = "{}") -> dict[str, bytes]:
    return {
        train: coco([image(1, written.format("0.png"))], [annotation(1, 1)]),
        val: coco([image(1, written.format("0.png"))], [annotation(1, 1, 7)]),
        f"{train_folder}/0.png": picture(1),
        f"{val_folder}/0.png": picture(2),
    }


@pytest.mark.parametrize(
    "files",
    [
        _files(
            "annotations/instances_train2017.json",
            "annotations/instances_val2017.json",
            "train2017",
            "val2017",
        ),
        _files("c/annotations/train.json", "c/annotations/val.json", "c/images/train", "c/images/val"),
        _files("train/_annotations.coco.json", "valid/_annotations.coco.json", "train", "valid"),
        _files("training/x.json", "validation/x.json", "training/images", "validation/images", "./images/{}"),
        _files("train.json", "val.json", "train", "val", "C:\\data\\me\\{}"),
    ],
)
def test_splits_of_several_files(files: dict[str, bytes], tmp_path: Path) -> None:
    found = judge(files, tmp_path)
    assert found.status == "ready", found.problems
    assert found.result["splits"] == {"train": 1, "val": 1, "test": 0}
    for split, cls in (("train", 0), ("val", 1)):
        ((name),) = found.names_of(split)
        assert split[:3] in name
        assert [number for number, _ in found.edges(name)] == [cls]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("annotations/instances_val2017.json", "val"),
        ("train/_annotations.coco.json", "train"),
        ("annotations.json", None),
    ],
)
def test_a_lone_file_is_divided_and_a_split_in_its_name_noted(
    name: str, split: str | None, tmp_path: Path
) -> None:
    listed = [image(number, f"{number}.png") for number in range(4)]
    files = {name: coco(listed, [annotation(number, number) for number in range(4)])}
    found = judge(files | {f"pictures/{number}.png": picture(number) for number in range(4)}, tmp_path)
    assert found.status == "ready", found.problems
    assert min(found.result["splits"][one] for one in ("train", "val")) >= 1
    assert ("SPLIT_NAME_IGNORED" in found.codes("info")) == (split is not None)
    if split is not None:
        entry = found.entry("SPLIT_NAME_IGNORED")
        assert (entry["file"], entry["value"]) == (name, split)


def test_files_beside_instances_and_of_no_split_are_ignored_with_a_word(tmp_path: Path) -> None:
    files = _files("annotations/instances_train.json", "annotations/instances_val.json", "train", "val")
    panoptic = coco([image(1, "0.png")], [{"image_id": 1, "segments_info": []}])
    files |= {
        "annotations/panoptic_train.json": panoptic,
        "annotations/instances_all.json": coco([image(1, "0.png")], [annotation(1, 1)]),
        "annotations/captions_train.json": b'{"images": [], "annotations": [{"caption": "x"}]}',
    }
    found = judge(files, tmp_path)
    assert found.status == "ready", found.problems
    ignored = {p["file"] for p in found.problems if p["code"] in ("ANNOTATIONS_IGNORED", "FILE_IGNORED")}
    assert ignored == {name for name in files if "panoptic" in name or "captions" in name or "_all" in name}
    assert found.result["num_boxes"] == 2


def test_an_outline_keeps_its_box_and_parts_are_joined_without_area(tmp_path: Path) -> None:
    one = [[4, 2, 24, 2, 24, 12, 4, 12]]
    parts = [[0, 0, 10, 0, 10, 10], [20, 10, 40, 10, 40, 20]]
    found = two(
        tmp_path,
        annotation(1, 1, 7, segmentation=one),
        annotation(2, 2, 7, segmentation=parts, bbox=[0, 0, 40, 20]),
        annotation(3, 2, 90, segmentation=one, bbox=None),
    )
    assert found.status == "ready", found.problems
    first, second = found.image("images/a.png"), found.image("images/b.png")
    assert first["polygons"] == [None, [[0.1, 0.1], [0.6, 0.1], [0.6, 0.6], [0.1, 0.6]]]
    joined = [(x * 40, y * 20) for x, y in second["polygons"][1]]
    rounded = [(round(x), round(y)) for x, y in joined]
    assert rounded == [(0, 0), (10, 0), (10, 10), (0, 0), (20, 10), (40, 10), (40, 20), (20, 10), (0, 0)]
    assert _area(joined) == pytest.approx(_area(joined[:3]) + _area(joined[4:7]))
    assert found.entry("COCO_POLYGONS_JOINED")["value"] == "1"
    assert found.edges("images/b.png")[2] == (2, [4, 2, 24, 12])


def _area(points: list[tuple[float, float]]) -> float:
    """Shoelace formula."""
    pairs = zip(points, points[1:] + points[:1], strict=True)
    return sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in pairs) / 2


@pytest.mark.parametrize(("keep", "boxes"), [(False, 2), (True, 3)])
def test_crowd_regions_are_dropped_or_kept_as_boxes(keep: bool, boxes: int, tmp_path: Path) -> None:
    mask = {"counts": [0, 5, 3], "size": [20, 40]}
    crowd = annotation(9, 1, 7, iscrowd=1, segmentation=mask)
    found = two(tmp_path, crowd, keep_crowd=keep)
    assert found.status == "ready" and found.result["num_boxes"] == boxes
    assert ("COCO_CROWD_DROPPED" in found.codes("info")) is not keep


@pytest.mark.parametrize(
    ("bad", "severity", "code", "value"),
    [
        (annotation(5, 1, bbox=[float("nan"), 1, 2, 3]), "error", "LABEL_NOT_A_NUMBER", "annotation 5"),
        (annotation(5, 1, bbox=[1, 1, float("inf"), 3]), "error", "LABEL_NOT_A_NUMBER", "annotation 5"),
        (annotation(5, 1, bbox=[1, 1, 10**400, 3]), "error", "LABEL_NOT_A_NUMBER", "annotation 5"),
        (annotation(5, 1, bbox=[1, 1, 3]), "error", "LABEL_COLUMNS", "annotation 5"),
        (annotation(5, 1, bbox=["1", 1, 3, 3]), "error", "LABEL_COLUMNS", "annotation 5"),
        (annotation(5, 1, bbox={"x": 1}), "error", "LABEL_COLUMNS", "annotation 5"),
        (annotation(5, 1, category=500), "error", "LABEL_CLASS", "annotation 5"),
        (annotation(5, 1, image_id=None), "error", "COCO_ANNOTATION", "annotation 5"),
        (annotation(5, 1, bbox=[1, 1, -3, 3]), "warning", "LABEL_NEGATIVE", "annotation 5"),
        (annotation(5, 1, bbox=[1, 1, 0, 3]), "warning", "LABEL_NO_AREA_DROPPED", "annotation 5"),
        (annotation(5, 1, bbox=[41, 1, 5, 3]), "warning", "LABEL_NO_AREA_DROPPED", "annotation 5"),
        (annotation(5, 77), "warning", "COCO_ORPHAN", "annotation 5"),
        (annotation(5, 1, bbox=None), "warning", "COCO_NO_BOX", "annotation 5"),
        (annotation(5, 1), "warning", "LABEL_DUPLICATE", "annotation 5"),
        (annotation(100, 2), "warning", "COCO_DUPLICATE_ID", "annotation 100"),
        (annotation(5, 1, 7, segmentation=[[1, 2, 3, 4]]), "warning", "COCO_POLYGON", "annotation 5"),
        (annotation(5, 1, 7, bbox=[30, 10, 20, 20]), "warning", "LABEL_LEAVES_IMAGE", "annotation 5"),
    ],
)
def test_a_bad_annotation_is_named_by_its_id(
    bad: Json, severity: str, code: str, value: str, tmp_path: Path
) -> None:
    found = two(tmp_path, bad)
    assert found.status == ("invalid" if severity == "error" else "ready"), found.problems
    entry = found.entry(code)
    assert entry["severity"] == severity and entry["file"] == "annotations.json"
    assert entry["value"].startswith(value)


@pytest.mark.parametrize(
    ("images", "severity", "code"),
    [
        ([image(1, "a.png"), image(1, "b.png")], "error", "COCO_DUPLICATE_ID"),
        ([image(1, "a.png"), image(1, "a.png"), image(2, "b.png")], "warning", "COCO_DUPLICATE_ID"),
        ([image(1, "a.png"), image(2, "b.png"), image(3, "gone.png")], "warning", "LISTED_IMAGE_MISSING"),
        (
            [image(1, "a.png"), image(2, "b.png"), image(3, "../../etc/passwd")],
            "warning",
            "LISTED_IMAGE_MISSING",
        ),
        ([image(1, "a.png"), image(2, "b.png"), {"id": 3}], "error", "COCO_IMAGE"),
        ([image(1, "a.png"), image(2, "b.png"), image(3, "images/a.png")], "warning", "COCO_IMAGE_TWICE"),
        ([image(1, "a.png", (80, 40)), image(2, "b.png")], "warning", "IMAGE_SIZE_DIFFERS"),
        ([image(1, "a.png", (0, 0)), image(2, "b.png")], "warning", "IMAGE_SIZE_UNTOLD"),
    ],
)
def test_odd_pictures(images: list[Json], severity: str, code: str, tmp_path: Path) -> None:
    found = two(tmp_path, images=images)
    assert found.status == ("invalid" if severity == "error" else "ready"), found.problems
    assert found.entry(code)["severity"] == severity


def test_boxes_drawn_on_a_larger_copy_are_scaled_and_others_are_not(tmp_path: Path) -> None:
    images = [image(1, "a.png", (80, 40)), image(2, "b.png", (20, 40))]
    found = two(tmp_path, images=images)
    assert found.edges("images/a.png") == [(0, [2, 1, 12, 6])]
    assert found.edges("images/b.png") == [(0, [4, 2, 24, 12])]


def test_a_heading_without_objects_is_no_class_and_equal_names_are_one(tmp_path: Path) -> None:
    categories = [{"id": 0, "name": "pets", "supercategory": "none"}]
    categories += [c | {"supercategory": "pets"} for c in CATEGORIES]
    categories += [{"id": 4, "name": "cow", "supercategory": "pets"}]
    found = two(tmp_path, annotation(1, 1, 4), categories=categories)
    assert found.status == "ready", found.problems
    assert set(found.manifest["names"]) == {"cat", "dog", "cow"}
    assert {"COCO_SUPERCATEGORY", "COCO_CATEGORY_TWICE"} <= found.codes()


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b'{"images": [], "annotations": [], "categories": [', "JSON_SYNTAX"),
        (b'{"images": [], "annotations": [], "categories": []} x', "JSON_SYNTAX"),
        (b'{"images": [' + b"[" * 100_000 + b'"annotations" "categories"', "JSON_TOO_DEEP"),
        (b'{"images": 1, "annotations": ' + b'{"categories":' * 100_000, "JSON_TOO_DEEP"),
        (b'{"images": [[' + b"[]," * 2_000_000 + b'"annotations" "categories"', "ANNOTATIONS_TOO_LARGE"),
        (b'{"images": [], "annotations": ["categories", "open', "JSON_SYNTAX"),
        (b'{"images": [1' + b"0" * 5000 + b'], "annotations": [], "categories": []}', "JSON_SYNTAX"),
        (b'{"images": "\xff", "annotations": [], "categories": []}', "JSON_ENCODING"),
        (b'{"images": [], "annotations": [], "categories": []}', "NAMES_EMPTY"),
        (b'{"images": {}, "annotations": [], "categories": []}', "FORMAT_NOT_RECOGNISED"),
    ],
)
def test_what_is_no_coco_file(content: bytes, code: str, tmp_path: Path) -> None:
    found = judge({"a.png": picture(1), "c.json": content}, tmp_path)
    assert found.status == "invalid"
    assert found.entry(code)["file"] == "c.json"


def test_too_much_json_is_said(tmp_path: Path) -> None:
    files = {"a.png": picture(1), "c.json": coco([image(1, "a.png")], [annotation(1, 1)])}
    found = judge(files, tmp_path, limits=Limits(max_annotations_bytes=100))
    assert found.status == "invalid"
    assert found.codes("warning") == {"ANNOTATIONS_TOO_LARGE"}
    assert found.codes("error") == {"FORMAT_NOT_RECOGNISED"}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_encodings_json_may_have(encoding: str, tmp_path: Path) -> None:
    content = coco([image(1, "a.png"), image(2, "b.png")], [annotation(1, 1), annotation(2, 2)])
    files = {"a.png": picture(1), "b.png": picture(2), "c.json": content.decode().encode(encoding)}
    assert judge(files, tmp_path).status == "ready"


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
)
IDS = st.integers(0, 2) | VALUES
NAMES = st.sampled_from(["a.png", "b.png", "x/a.png", "..", "/", "\\"]) | VALUES
ITEMS = {
    "images": st.fixed_dictionaries({"id": IDS, "file_name": NAMES, "width": VALUES, "height": VALUES}),
    "categories": st.fixed_dictionaries({"id": IDS, "name": NAMES}, optional={"supercategory": NAMES}),
    "annotations": st.fixed_dictionaries(
        {"image_id": IDS, "category_id": IDS},
        optional={
            "id": IDS,
            "bbox": st.lists(st.floats() | st.integers(-5, 50), min_size=4, max_size=4) | VALUES,
            "segmentation": st.lists(st.lists(st.floats(-9, 60), max_size=9), max_size=3) | VALUES,
            "iscrowd": VALUES,
        },
    ),
}
FILES = st.fixed_dictionaries({key: st.lists(items | VALUES, max_size=4) for key, items in ITEMS.items()})


@given(FILES, st.booleans())
@settings(max_examples=80, deadline=None)
def test_any_json_gives_rows_or_entries(content: Json, keep_crowd: bool) -> None:
    report = Report()
    text = json.dumps(content).encode()
    assert looks_like_coco(text)
    file = parse_coco(text, "c.json", report, keep_crowd=keep_crowd)
    assert file is not None
    total = sum(isinstance(item, dict) for item in content["annotations"])
    assert len(file.objects) == total or report.entries()
    layout = coco_layout([file], Pictures(["a.png", "x/a.png", "y/b.png"]), report, ImportOptions())
    assert layout is not None or report.count("error")
    json.dumps(report.entries(), ensure_ascii=False).encode()
    if layout is None or layout.objects is None:
        return
    for name, annotated in layout.objects.items():
        for row, _ in rows_of(annotated, name, (40, 20), report):
            assert 0 <= row.cls < len(layout.names)
            assert all(0 <= value <= 1 for value in row.numbers[1:])
            assert all(0 <= value <= 1 for point in row.polygon or () for value in point)


@given(st.binary(max_size=200), st.binary(max_size=20))
@settings(max_examples=200, deadline=None)
def test_any_bytes_give_a_file_or_an_entry(content: bytes, end: bytes) -> None:
    for candidate in (content, b'{"images": [], "categories": [], "annotations": [' + content + end):
        report = Report()
        looks_like_coco(candidate)
        file = parse_coco(candidate, "c.json", report)
        assert file is not None or report.count("error") or candidate.strip()[:1] == b"{"


def test_values_of_other_keys_are_passed_over(tmp_path: Path) -> None:
    content = coco(
        [image(1, "a.png"), image(2, "b.png")],
        [annotation(1, 1), annotation(2, 2)],
        licenses=[{"name": 'a "quoted" ]} text\\'}],
        deep=[[[{"x": []}]]],
        number=-1.5,
    )
    files = {"a.png": picture(1), "b.png": picture(2), "c.json": content}
    assert judge(files, tmp_path).status == "ready"


def test_an_unknown_key_takes_no_room() -> None:
    text = b'{"x": [' + b"[]," * 30_000 + b'[]], "images": [], "annotations": [], "categories": []}'
    tracemalloc.start()
    try:
        assert parse_coco(text, "c.json", Report()) is not None
        assert tracemalloc.get_traced_memory()[1] < 4 * len(text)
    finally:
        tracemalloc.stop()
