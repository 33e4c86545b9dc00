"""The studio: all figures of every public file, warnings against a dataset, and how long it takes."""

from __future__ import annotations

import json
import math
import statistics
import time
from typing import Any

import pytest

from tests.support.figures import record
from yolocore.errors import ArchitectureError
from yolocore.spec.advice import DatasetFacts
from yolocore.spec.compare import Comparison
from yolocore.spec.studio import difference, study
from yolocore.spec.zoo import ZOO, zoo_text

BINS = 20
LARGEST = ("hub/yolov5x6", "hub/yolov5-p7", "segment/yolov5x-seg")


def histogram(*places: float) -> tuple[int, ...]:
    """Return a histogram with one box at each fraction of the side."""
    counts = [0] * BINS
    for place in places:
        counts[min(int(place * BINS), BINS - 1)] += 1
    return tuple(counts)


def warnings(name: str = "yolov5n", *, text: str | None = None, **facts: Any) -> list[tuple[str, int | None]]:
    """Return (code, line) of what is said of a model on a dataset of square pictures."""
    dataset = DatasetFacts(**{"num_classes": 80, "picture_px": (1000, 1000), **facts})
    found = study(text or zoo_text(name), dataset=dataset).warnings
    return [(problem.code, problem.line) for problem in found]


@pytest.mark.parametrize("name", ZOO)
def test_every_public_file_is_told_in_full(name: str) -> None:
    body = json.loads(json.dumps(study(zoo_text(name), batch=16).as_dict()))
    layers = body["layers"]
    assert body["memory"]["training_bytes"] == sum(layer["training_bytes"] for layer in layers)
    assert body["memory"]["inference_bytes"] == max(layer["alive_bytes"] for layer in layers)
    assert all(layer["line"] and layer["column"] for layer in layers)
    assert all(len(layer["receptive_fields_px"]) == len(layer["out_shapes"]) for layer in layers)
    graph = body["graph"]
    assert [node["row"] for node in graph["nodes"]] == list(range(-1, len(layers)))
    assert {(edge["source"], edge["target"]) for edge in graph["edges"]} == {
        (source, layer["row"]) for layer in layers for source in _sources(layer)
    }
    assert [edge["source"] for edge in graph["edges"] if edge["skip"]]


def _sources(layer: dict[str, Any]) -> list[int]:
    written = layer["from"] if isinstance(layer["from"], list) else [layer["from"]]
    return [source if source >= 0 else layer["row"] + source for source in written]


def test_the_largest_public_files_take_a_moment() -> None:
    times = []
    for name in LARGEST:
        taken = []
        for _ in range(7):
            start = time.perf_counter()
            study(zoo_text(name), batch=16).as_dict()
            taken.append(1000 * (time.perf_counter() - start))
        times.append(statistics.median(taken))
    record("model YAML checked, largest public file, median", max(times), "ms", 50)
    assert max(times) < 250


def test_the_dataset_decides_the_number_of_classes() -> None:
    dataset = DatasetFacts(num_classes=3)
    found = study(zoo_text("yolov5n"), dataset=dataset)
    assert found.plan.num_classes == 3
    (warning,) = found.warnings
    assert (warning.code, warning.line, warning.column, warning.value) == ("CLASSES_DIFFER", 1, 1, "80")
    assert study(zoo_text("yolov5n"), dataset=dataset, num_classes=5).plan.num_classes == 5
    assert not study(zoo_text("yolov5n").replace("nc: 80\n", ""), dataset=dataset).warnings


def test_anchors_are_held_against_the_boxes() -> None:
    everywhere = histogram(0.01, 0.1, 0.3, 0.6, 0.9)
    assert warnings(box_widths=everywhere, box_heights=everywhere) == []
    assert warnings(box_widths=(), box_heights=()) == []
    assert warnings(box_widths=everywhere, box_heights=everywhere, picture_px=None) == []
    assert warnings("hub/yolov5-p2", box_widths=everywhere, box_heights=everywhere) == []
    # Boxes of 8 to 10 pixels at most, in pictures that are shrunk to 640: large anchors fit none of them.
    tiny = histogram(0.01, 0.01)
    assert warnings(box_widths=tiny, box_heights=tiny)[-1] == ("ANCHORS_IDLE", 4)
    # Small anchors only, and boxes that fill the picture.
    text = zoo_text("yolov5n").replace("116,90, 156,198, 373,326", "20,20, 22,22, 24,24")
    text = text.replace("30,61, 62,45, 59,119", "11,11, 12,12, 13,13")
    large = histogram(0.9, 0.9, 0.02)
    assert warnings(text=text, box_widths=large, box_heights=large) == [("ANCHORS_MISS_BOXES", 4)]


def test_facts_are_taken_from_statistics() -> None:
    found = {
        "image_width_px": {"min": 1, "median": 320, "max": 500},
        "image_height_px": {"min": 1, "median": 240.5, "max": 500},
        "box_width": [1, 2],
        "box_height": [3, 4],
    }
    assert DatasetFacts.of_statistics(2, found) == DatasetFacts(2, (1, 2), (3, 4), (320, 240.5))
    assert DatasetFacts.of_statistics(2, {"image_width_px": None}) == DatasetFacts(2)


SMALL = """
nc: 2
anchors: 1
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 2, C3, [16]]
  - [-1, 1, SPPF, [16, 5]]
head:
  - [[-1, 2], 1, Concat, [1]]
  - [[-1], 1, Detect, [nc, anchors]]
"""


def differ(right: str, left: str = SMALL) -> Comparison:
    return difference(left, right, names=("left", "right"))


def told(found: Comparison) -> list[tuple[Any, ...]]:
    """Return the rows that are not the same."""
    return [(row.change, row.left, row.right) for row in found.rows if row.change != "same"]


def test_a_text_does_not_differ_from_itself() -> None:
    found = differ(SMALL)
    assert (found.keys, told(found), found.parameters_change, found.flops_change) == ((), [], 0, 0)
    assert found.count("same") == 6


def test_a_row_put_in_changes_no_other() -> None:
    longer = SMALL.replace("  - [-1, 2, C3", "  - [-1, 1, Conv, [16]]\n  - [-1, 2, C3")
    longer = longer.replace("-1, 2], 1", "-1, 3], 1")
    found = differ(longer)
    assert told(found) == [("added", None, 2)]
    assert found.parameters_change == found.rows[2].right_parameters == 16 * 16 + 32
    back = differ(SMALL, longer)
    assert told(back) == [("removed", 2, None)]
    assert back.parameters_change == -found.parameters_change


def test_changed_rows_and_keys_say_what_changed() -> None:
    right = SMALL.replace("nc: 2", "nc: 3\nwidth_multiple: 0.5").replace("2, C3, [16]", "4, C3, [32]")
    right = right.replace("SPPF, [16, 5]", "SPP, [16, [3, 5]]").replace("[[-1, 2]", "[[-1, 1]")
    found = differ(right)
    assert [(key.name, key.left, key.right) for key in found.keys] == [
        ("nc", "2", "3"),
        ("width_multiple", "1", "0.5"),
    ]
    details = {
        row.right: [(x.name, x.left, x.right) for x in row.details] for row in found.rows if row.details
    }
    assert details == {
        2: [("number", "2", "4"), ("c2", "16", "32")],
        3: [("module", "SPPF", "SPP")],
        4: [("from", "[-1, 2]", "[-1, 1]")],
    }


def test_public_files_of_one_family_differ_as_they_should() -> None:
    found = difference(zoo_text("yolov5l"), zoo_text("hub/yolov5-bifpn"), names=("a", "b"))
    assert told(found) == [("changed", 19, 19)]
    assert found.parameters_change == 46_825_853 - 46_563_709
    assert math.isclose(found.flops_change / 1e9, 110.42 - 109.58, abs_tol=0.01)
    scaled = difference(zoo_text("yolov5n"), zoo_text("yolov5s"), names=("a", "b"))
    assert told(scaled) == []
    assert [key.name for key in scaled.keys] == ["width_multiple"]


def test_the_text_at_fault_is_named() -> None:
    with pytest.raises(ArchitectureError, match="right: "):
        differ("nc: 1")
