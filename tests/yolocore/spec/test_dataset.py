"""The manifest: canonical bytes, a hash that names content, and refusals that name the place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from yolocore.errors import DatasetError
from yolocore.spec.dataset import Manifest, ManifestImage


def image(name: str = "a.jpg", split: str = "train", **changes: Any) -> ManifestImage:
    fields = {
        "split": split,
        "name": name,
        "sha256": "0" * 64,
        "bytes": 10,
        "width": 40,
        "height": 30,
        "rows": [(1, 0.5, 0.5, 0.1, 0.2)],
    }
    return ManifestImage.model_validate({**fields, **changes})


def test_order_of_images_does_not_change_the_hash() -> None:
    images = [image("b.jpg"), image("a.jpg"), image("a.jpg", "val")]
    first, second = Manifest.build(["x", "y"], images), Manifest.build(["x", "y"], images[::-1])
    assert first == second
    assert first.manifest_hash() == second.manifest_hash()
    assert [entry.name for entry in first.images_of("train")] == ["a.jpg", "b.jpg"]
    assert (first.count("train"), first.count("val"), first.count("test")) == (2, 1, 0)


def test_it_survives_its_own_json() -> None:
    manifest = Manifest.build(
        ["x", "\u7ec6\u80de"],
        [
            image(
                rows=[(0, 0.1, 0.3, 1 / 3, 1.0), (1, 0, 0, 0, 0)], polygons=[[(0, 0), (0.5, 0), (1, 1)], None]
            )
        ],
    )
    text = manifest.canonical_json()
    assert Manifest.parse(text) == manifest
    assert Manifest.parse(text).canonical_json() == text
    assert manifest.manifest_hash() != Manifest.build(["x", "z"], manifest.images).manifest_hash()


def test_polygons_are_absent_where_there_are_none() -> None:
    manifest = Manifest.build(["x", "y"], [image(polygons=[None])])
    assert b"polygons" not in manifest.canonical_json()
    assert manifest == Manifest.build(["x", "y"], [image()])


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"v": 2}, "/v"),
        ({"names": []}, "/names"),
        ({"extra": 1}, "/extra"),
        ({"images": [{"split": "holdout"}]}, "/images/0/split"),
    ],
)
def test_a_damaged_manifest_names_the_place(change: dict[str, Any], pointer: str) -> None:
    document = json.loads(Manifest.build(["x", "y"], [image()]).canonical_json())
    with pytest.raises(DatasetError) as caught:
        Manifest.parse(json.dumps({**document, **change}))
    assert pointer in [problem.pointer for problem in caught.value.problems]


@pytest.mark.parametrize(
    "images",
    [
        [image(), image()],
        [image(rows=[(2, 0.5, 0.5, 0.1, 0.1)])],
    ],
)
def test_what_cannot_be_a_dataset_is_refused(images: list[ManifestImage]) -> None:
    with pytest.raises(DatasetError):
        Manifest.build(["x", "y"], images)


@pytest.mark.parametrize(
    "row", [(0, 1.5, 0, 0, 0), (0, float("nan"), 0, 0, 0), (-1, 0, 0, 0, 0), (0, 0, 0, 0)]
)
def test_rows_are_bounded(row: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="rows"):
        image(rows=[row])
