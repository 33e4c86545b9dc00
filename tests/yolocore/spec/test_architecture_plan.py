"""The plan: overrides, strides, joins, limits, warnings, and the summary the service shows."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from yolocore.errors import ArchitectureError, Problem
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.plan import Plan, plan_architecture
from yolocore.spec.zoo import zoo_text

HEAD = "[nc, anchors]"


def plan(text: str, **keywords: Any) -> Plan:
    return plan_architecture(parse_architecture(text), **keywords)


def refused(text: str, **keywords: Any) -> Problem:
    with pytest.raises(ArchitectureError) as caught:
        plan(text, **keywords)
    return caught.value.problems[0]


def model(*rows: str, head: str = "[[-1], 1, Detect, [nc, anchors]]", keys: str = "") -> str:
    """Return a model YAML of these rows and a head of one level."""
    body = "".join(f"  - {row}\n" for row in rows)
    return f"nc: 2\nanchors: 1\n{keys}backbone:\n{body}head:\n  - {head}\n"


def test_overrides_win() -> None:
    text = zoo_text("yolov5n")
    assert plan(text).num_classes == 80
    changed = plan(text, num_classes=3, anchors=2)
    assert (changed.num_classes, changed.num_anchors, changed.num_outputs) == (3, 2, 8)
    assert changed.anchors_px[1] == ((0, 1), (2, 3))
    assert changed.anchors_are_placeholders


def test_without_nc_the_dataset_decides() -> None:
    text = zoo_text("yolov5n").replace("nc: 80\n", "")
    assert [warning.code for warning in plan(text).warnings] == ["CLASSES_FROM_DATASET"]
    assert not plan(text, num_classes=7).warnings


def test_shapes_follow_the_picture() -> None:
    wide = plan(zoo_text("yolov5n"), imgsz=(320, 640))
    assert [tuple(shape) for shape in wide.layers[-1].out_shapes] == [
        (255, 40, 80),
        (255, 20, 40),
        (255, 10, 20),
    ]
    assert wide.gflops == pytest.approx(plan(zoo_text("yolov5n")).gflops / 2)


def test_a_picture_is_rounded_up_to_what_the_strides_divide() -> None:
    assert plan(zoo_text("yolov5n"), imgsz=(600, 620)).imgsz == (608, 640)
    assert plan(zoo_text("hub/yolov5-p7"), imgsz=(640, 641)).imgsz == (640, 768)


def test_a_stride_of_three_is_fine_where_it_meets_nothing() -> None:
    odd = plan(model("[-1, 1, Conv, [8, 3, 3]]", "[-1, 1, Conv, [8, 3, 2]]"))
    assert odd.strides == (6,)
    assert odd.imgsz == (642, 642)


@pytest.mark.parametrize(
    ("row", "stride"),
    [
        ("[-1, 1, Focus, [8, 3]]", 2),
        ("[-1, 1, Contract, [4]]", 4),
        ("[-1, 1, nn.MaxPool2d, [2]]", 2),
        ("[-1, 2, Conv, [8, 3, 2]]", None),
        ("[-1, 1, DWConv, [8, 3, 2]]", 2),
        ("[-1, 1, MixConv2d, [8, [3, 5], 2]]", 2),
        ("[-1, 1, CrossConv, [8, 3, 2]]", 2),
        ("[-1, 1, GhostConv, [8, 3, 2]]", 2),
        ("[-1, 1, GhostBottleneck, [8, 3, 2]]", 2),
    ],
)
def test_strides_follow_from_the_rows(row: str, stride: int | None) -> None:
    text = model(row)
    if stride is None:
        assert refused(text).code == "BAD_CHANNELS"
    else:
        assert plan(text).strides == (stride,)


def test_enlarging_rows_divide_the_stride() -> None:
    rows = ["[-1, 1, Conv, [16, 3, 2]]", "[-1, 1, Conv, [16, 3, 2]]"]
    for up in ("nn.ConvTranspose2d, [16, 2, 2]", "DWConvTranspose2d, [16, 2, 2]", "Expand, [2]"):
        assert plan(model(*rows, f"[-1, 1, {up}]")).strides == (2,)


def test_maps_that_do_not_meet_are_named_with_both_rows() -> None:
    text = model(
        "[-1, 1, Conv, [8, 3, 2]]",
        "[-1, 1, Conv, [8, 3, 2]]",
        "[[-1, 0], 1, Concat, [1]]",
    )
    problem = refused(text)
    assert (problem.code, problem.row, problem.line) == ("SIZE_MISMATCH", 2, 6)
    assert problem.column == 11
    assert "row 2 Concat joins 160\u00d7160 from row 1 with 320\u00d7320 from row 0" in problem.message


def test_a_grid_that_does_not_fit_its_stride_is_refused() -> None:
    assert refused(model("[-1, 1, Conv, [8, 3, 2, 0]]")).code == "GRID_MISMATCH"
    assert refused(model("[-1, 1, Conv, [8, 2, 1]]")).code == "GRID_MISMATCH"
    assert refused(model("[-1, 1, nn.Upsample, [None, 2, nearest]]")).code == "GRID_MISMATCH"


def test_more_levels_than_the_loss_can_weigh_are_refused() -> None:
    rows = [f"[-1, 1, Conv, [{8 * number}, 3, 2]]" for number in range(1, 7)]
    assert plan(model(*rows, head=f"[[1, 2, 3, 4, 5], 1, Detect, {HEAD}]")).num_levels == 5
    problem = refused(model(*rows, head=f"[[0, 1, 2, 3, 4, 5], 1, Detect, {HEAD}]"))
    assert (problem.code, problem.row, problem.line) == ("LEVEL_COUNT", 6, 11)


def test_rows_behind_a_bad_row_are_not_blamed() -> None:
    text = model("[-1, 1, Conv, [8, 3, 2, 1, 3]]", "[-1, 1, Conv, [8, 3, 2]]", "[-1, 1, Conv, [8]]")
    with pytest.raises(ArchitectureError) as caught:
        plan(text)
    assert [problem.row for problem in caught.value.problems] == [0]


def test_unused_rows_are_a_warning() -> None:
    text = model("[-1, 1, Conv, [8, 3, 2]]", "[-1, 1, Conv, [8]]", head=f"[[0], 1, Detect, {HEAD}]")
    (warning,) = plan(text).warnings
    assert (warning.code, warning.row, warning.line) == ("UNUSED_ROW", 1, 5)


def test_anchor_levels_run_with_the_strides() -> None:
    text = zoo_text("yolov5n").replace(
        "[[10,13, 16,30, 33,23], [30,61, 62,45, 59,119], [116,90, 156,198, 373,326]]",
        "[[116,90, 156,198, 373,326], [30,61, 62,45, 59,119], [10,13, 16,30, 33,23]]",
    )
    assert plan(text).anchors_px == plan(zoo_text("yolov5n")).anchors_px
    assert plan(zoo_text("hub/yolov5-p2")).anchors_are_placeholders


def test_a_width_equal_to_the_outputs_is_scaled_unless_asked() -> None:
    text = zoo_text("yolov5n")
    assert plan(text, num_classes=11, anchors=4).layers[0].out_channels == 16
    kept = plan(text, num_classes=11, anchors=4, keep_output_width=True)
    assert kept.layers[0].out_channels == 64


@pytest.mark.parametrize(
    "text",
    [
        model(*["[-1, 1, Conv, [65536, 9, 1]]"] * 3),
        model("[-1, 1, Conv, [60000, 1, 1]]", keys="width_multiple: 10\n"),
        model("[-1, 1, Conv, [4096, 3, 1]]"),
        model("[-1, 1, Conv, [64, 3, 2]]", "[-1, 1, C3TR, [64]]", *["[-1, 1, Conv, [64, 3, 2]]"] * 4),
        model(*["[-1, 100, C3, [8]]"] * 290),
        model("[-1, 100, C3, [64]]", keys="depth_multiple: 10\n"),
        model(*["[-1, 1, nn.Upsample, [None, 32, nearest]]"] * 5),
    ],
    ids=["parameters", "width", "activations", "attention", "tensors", "repeats", "enlarged"],
)
def test_giants_are_refused_before_anything_is_built(text: str) -> None:
    start = time.perf_counter()
    assert refused(text).code == "TOO_LARGE"
    assert time.perf_counter() - start < 5


def test_many_classes_are_bounded_by_memory() -> None:
    assert plan(zoo_text("yolov5n"), num_classes=1203).num_outputs == 1208
    assert refused(zoo_text("yolov5x"), num_classes=20_000, imgsz=(2560, 2560)).code == "TOO_LARGE"
    assert refused(zoo_text("yolov5n"), num_classes=0).code == "BAD_VALUE"


def test_an_image_size_out_of_bounds_is_refused() -> None:
    assert refused(zoo_text("yolov5n"), imgsz=(0, 640)).code == "BAD_IMAGE_SIZE"
    assert refused(zoo_text("yolov5n"), imgsz=(640, 100_000)).code == "BAD_IMAGE_SIZE"


def test_the_summary_is_json() -> None:
    for name in ("yolov5n", "segment/yolov5n-seg", "hub/yolov5s-LeakyReLU"):
        summary = json.loads(json.dumps(plan(zoo_text(name)).summary()))
        assert summary["num_parameters"] == sum(layer["num_parameters"] for layer in summary["layers"])
        assert summary["strides"] == [8, 16, 32]
    own = plan(model("[-1, 1, Conv, [8, 3, 2, None, 1, 1, nn.ReLU()]]")).summary()
    assert own["layers"][0]["args"]["act"] == "nn.ReLU()"
