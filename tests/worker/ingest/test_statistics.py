"""What is counted of a dataset, on cases small enough to count by hand, and what is advised from it."""

from __future__ import annotations

import numpy as np
import pytest

from worker.ingest.advice import advise
from worker.ingest.report import Report
from worker.ingest.statistics import anchor_fit, statistics
from yolocore.spec.dataset import Manifest, ManifestImage, Split

Row = tuple[int, float, float, float, float]


def image(split: Split, name: str, rows: list[Row], size: tuple[int, int] = (640, 480)) -> ManifestImage:
    """Return a picture of the manifest."""
    return ManifestImage(
        split=split, name=name, sha256="a" * 64, bytes=1, width=size[0], height=size[1], rows=rows
    )


def manifest(*images: ManifestImage, names: tuple[str, ...] = ("cat", "dog")) -> Manifest:
    """Return a manifest of pictures."""
    return Manifest.build(names, images)


def codes(dataset: Manifest, imgsz: int = 640) -> dict[str, str]:
    """Return severity by code of what is advised."""
    report = Report()
    advise(statistics(dataset, imgsz), report)
    return {entry["code"]: entry["severity"] for entry in report.entries()}


def test_counts_of_classes_splits_and_pictures() -> None:
    found = statistics(
        manifest(
            image("train", "a", [(0, 0.5, 0.5, 0.1, 0.1), (0, 0.1, 0.9, 0.1, 0.1), (1, 0.5, 0.5, 1, 1)]),
            image("train", "b", [], (100, 200)),
            image("val", "c", [(1, 1.0, 1.0, 0.2, 0.2)]),
        )
    )
    assert found["splits"]["train"] == {"images": 2, "backgrounds": 1, "boxes": 3}
    assert found["classes"] == [
        {"name": "cat", "boxes": 2, "images": 1},
        {"name": "dog", "boxes": 2, "images": 2},
    ]
    assert found["split_classes"]["train"] == {"boxes": [2, 1], "images": [1, 1]}
    assert found["split_classes"]["val"] == {"boxes": [0, 1], "images": [0, 1]}
    assert found["boxes_per_image"]["counts"][:4] == [1, 1, 0, 1]
    assert found["boxes_per_image"]["max"] == 3
    assert found["image_sizes"]["num_distinct"] == 2
    assert found["image_sizes"]["most"][0] == {"width": 640, "height": 480, "images": 2}
    assert found["heat_map"][8][8] == 2 and found["heat_map"][15][15] == 1 and found["heat_map"][14][1] == 1


def test_sizes_are_those_of_the_letterboxed_picture() -> None:
    # 1280 x 640 at 640 is halved: 64 x 64 px become 32 x 32, the first medium size.
    dataset = manifest(image("train", "a", [(0, 0.5, 0.5, 64 / 1280, 64 / 640)], (1280, 640)))
    sizes = statistics(dataset)["box_sizes_px"]
    assert (sizes["median_width"], sizes["median_height"]) == (32, 32)
    assert (sizes["small"], sizes["medium"], sizes["large"]) == (0, 1, 0)
    assert sizes["counts"][sizes["edges"].index(32)] == 1
    assert statistics(dataset, 320)["box_sizes_px"]["small"] == 1


def test_aspects_are_of_pixels_not_of_fractions() -> None:
    aspects = statistics(manifest(image("train", "a", [(0, 0.5, 0.5, 0.1, 0.1)], (1000, 100))))["box_aspects"]
    assert aspects["counts"][aspects["edges"].index(8)] == 1


def test_nothing_counted_is_nothing_claimed() -> None:
    found = statistics(manifest(image("train", "a", [])))
    assert found["anchors"]["recall"] is None and found["box_sizes_px"]["small"] is None
    assert sum(map(sum, found["heat_map"])) == sum(found["box_width"]) == 0
    assert statistics(manifest())["image_width_px"] is None


@pytest.mark.parametrize(
    ("size", "recall"), [((10, 13), 1.0), ((2, 13), 0.0), ((1491, 1303), 1.0), ((1493, 326), 0.0)]
)
def test_anchor_recall_is_strict_at_the_ratio(size: tuple[int, int], recall: float) -> None:
    assert anchor_fit(np.array([size], np.float64))["recall"] == recall


def test_each_box_counts_for_the_level_of_its_best_anchor() -> None:
    sizes = np.array([(10, 13), (60, 46), (370, 330), (380, 320)], np.float64)
    assert anchor_fit(sizes)["levels"] == [0.25, 0.25, 0.5]


BOX: Row = (0, 0.5, 0.5, 0.3, 0.3)
DOG: Row = (1, 0.5, 0.5, 0.3, 0.3)


def spread(number: int, box: Row = BOX) -> Row:
    """Return a box of its own place, so that rows differ."""
    return (box[0], 0.2 + number / 1000, *box[2:])


def test_imbalance_is_a_warning_beyond_a_hundred_to_one() -> None:
    both = [image("val", "v", [BOX, DOG])]
    hundred = image("train", "a", [spread(n) for n in range(100)] + [DOG])
    more = image("train", "a", [spread(n) for n in range(101)] + [DOG])
    assert codes(manifest(hundred, *both))["CLASS_RARE"] == "info"
    assert "CLASS_IMBALANCE" not in codes(manifest(hundred, *both))
    assert codes(manifest(more, *both))["CLASS_IMBALANCE"] == "warning"


def test_classes_of_one_split_only() -> None:
    found = codes(
        manifest(image("train", "a", [BOX]), image("val", "b", [DOG]), names=("cat", "dog", "never"))
    )
    assert found["CLASS_NOT_IN_TRAIN"] == found["CLASS_NOT_IN_VAL"] == "warning"
    assert found["CLASS_UNUSED"] == "info"


def test_small_objects_and_odd_shapes() -> None:
    small = manifest(image("train", "a", [(0, 0.5, 0.5, 0.01, 0.01)], (1920, 1080)), names=("cat",))
    assert {"SMALL_OBJECTS", "FEW_IMAGES"} <= codes(small).keys()
    thin = manifest(image("train", "a", [(0, 0.5, 0.5, 1.0, 0.002)]), names=("cat",))
    assert "ANCHORS_MISFIT" in codes(thin)


def test_a_sound_dataset_gets_no_advice() -> None:
    images = [image("train", f"{n:03}", [BOX, DOG]) for n in range(100)]
    assert codes(manifest(*images, image("val", "v", [BOX, DOG]))) == {}
