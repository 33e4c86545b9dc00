"""Samples from a manifest and from a YOLO folder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from yolocore.data.files import as_single_class, fingerprint, load_manifest, scan_yolo_folder
from yolocore.data.scan import check_image, label_path
from yolocore.errors import DatasetError
from yolocore.spec.dataset import Manifest, ManifestImage


def write_manifest(folder: Path) -> Path:
    images = []
    for number, split in enumerate(("val", "train")):
        Image.new("RGB", (30, 20), (number, 0, 0)).save(folder / "image.png")
        data = (folder / "image.png").read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        (folder / sha256[:2]).mkdir(exist_ok=True)
        (folder / sha256[:2] / sha256).write_bytes(data)
        triangle = [(0.1, 0.1), (0.2, 0.1), (0.2, 0.3)]
        images.append(
            ManifestImage.model_validate(
                {
                    "split": split,
                    "name": f"images/{split}/a.png",
                    "sha256": sha256,
                    "bytes": len(data),
                    "width": 30,
                    "height": 20,
                    "rows": [(0, 0.5, 0.5, 0.1, 0.1), (1, 0.15, 0.2, 0.1, 0.2)],
                    "polygons": [None, triangle] if split == "train" else None,
                }
            )
        )
    path = folder / "manifest.json"
    path.write_bytes(Manifest.build(["a", "b"], images).canonical_json())
    return path


def test_samples_of_a_manifest(tmp_path: Path) -> None:
    train, val = load_manifest(write_manifest(tmp_path), tmp_path)
    assert (train.split, val.split) == ("train", "val")
    assert (train.width, train.height, train.name) == (30, 20, "images/train/a.png")
    assert train.checked
    assert train.has_polygons
    assert not val.has_polygons
    assert len(val.polygons) == len(val.rows) == 2
    assert train.rows.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        train.rows[0, 0] = 1
    (single,) = as_single_class([train])
    assert set(single.rows[:, 0]) == {0}
    assert set(train.rows[:, 0]) == {0, 1}


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    path = write_manifest(tmp_path)
    sha256 = json.loads(path.read_text())["images"][0]["sha256"]
    (tmp_path / sha256[:2] / sha256).unlink()
    with pytest.raises(DatasetError, match="images/train/a.png"):
        load_manifest(path, tmp_path)


def write_folder(folder: Path, train: str = "images/train") -> Path:
    for split in ("train", "val"):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (40, 30)).save(folder / "images" / split / f"{number}.png")
            (folder / "labels" / split / f"{number}.txt").write_text("0 0.5 0.5 0.1 0.1\n7 0.5 0.5 0.1 0.1\n")
    (folder / "images" / "train" / "notes.txt").write_text("no picture")
    (folder / "train.txt").write_text("./images/train/1.png\nimages/train/0.png\n\n")
    path = folder / "data.yaml"
    path.write_text(f"train: {train}\nval: [images/val]\nnames: [a, b]\n")
    return path


@pytest.mark.parametrize("train", ["images/train", "./images", "train.txt", "../images/train"])
def test_samples_of_a_folder(tmp_path: Path, train: str) -> None:
    names, splits, problems = scan_yolo_folder(write_folder(tmp_path / "set", train))
    assert names == ("a", "b")
    expected = 4 if train == "./images" else 2
    assert [len(splits[split]) for split in ("train", "val", "test")] == [expected, 2, 0]
    assert all(len(sample.rows) == 1 for sample in splits["train"])
    assert {(problem.code, problem.line) for problem in problems} == {("LABEL_CLASS", 2)}
    assert all(problem.file and problem.file.endswith(".txt") for problem in problems)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="images/trian"):
        scan_yolo_folder(write_folder(tmp_path / "set", "images/trian"))
    with pytest.raises(DatasetError, match=r"none\.yaml"):
        scan_yolo_folder(tmp_path / "none.yaml")


def test_a_listed_picture_that_is_not_there_is_reported(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "set", "train.txt")
    (path.parent / "train.txt").write_text("./images/train/0.png\n./images/train/9.png\n")
    _, splits, problems = scan_yolo_folder(path)
    assert len(splits["train"]) == 1
    assert [problem.code for problem in problems if problem.file and "9.png" in problem.file] == [
        "IMAGE_MISSING"
    ]


@pytest.mark.parametrize("train", ["images/train", "train.txt"])
def test_pictures_that_nobody_reads_are_told_in_one_line(tmp_path: Path, train: str) -> None:
    path = write_folder(tmp_path / "set", train)
    folder = path.parent / "images" / "train"
    for name in ("b.gif", "c.GIF", "d.heic", "Thumbs.db"):
        (folder / name).write_bytes(b"")
    names = ("0.png", "b.gif", "c.GIF", "d.heic")
    (path.parent / "train.txt").write_text("".join(f"./images/train/{name}\n" for name in names))
    _, splits, problems = scan_yolo_folder(path)
    (problem,) = (problem for problem in problems if problem.code == "IMAGE_FORMAT")
    assert problem.file == str(folder / "b.gif") and "3 file(s)" in problem.message
    assert ".gif, .heic" in problem.message and splits["train"]


def test_a_list_that_is_no_text_is_named_with_its_line(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "set", "train.txt")
    (path.parent / "train.txt").write_bytes(b"./images/train/0.png\n\xff.png\n")
    with pytest.raises(DatasetError) as caught:
        scan_yolo_folder(path)
    assert (caught.value.code, caught.value.place) == ("DATA_ENCODING", f"{path.parent / 'train.txt'}:2")


@pytest.mark.parametrize(
    "change",
    [
        {"split": "val"},
        {"content": "0" * 64},
        {"width": 31},
        {"rows": np.zeros((2, 5), np.float32)},
        {"polygons": (None, None)},
    ],
)
def test_a_fingerprint_changes_with_whatever_is_learned_from(tmp_path: Path, change: dict[str, Any]) -> None:
    samples = load_manifest(write_manifest(tmp_path), tmp_path)
    before = fingerprint(samples)
    assert before == fingerprint(load_manifest(tmp_path / "manifest.json", tmp_path))
    assert before != fingerprint([replace(samples[0], **change), samples[1]])
    assert before != fingerprint(samples[::-1])


def test_unhashed_pictures_count_by_file_name_and_size(tmp_path: Path) -> None:
    _, splits, _ = scan_yolo_folder(write_folder(tmp_path / "set", "images/train"))
    (sample, *_) = splits["train"]
    moved = replace(sample, path=tmp_path / "elsewhere" / sample.path.name, content="other", name="other")
    assert fingerprint([moved]) == fingerprint([sample])
    assert fingerprint([replace(sample, num_bytes=1)]) != fingerprint([sample])
    assert fingerprint([replace(sample, path=tmp_path / "b.png")]) != fingerprint([sample])


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("/a/images/train/x.jpg", "/a/labels/train/x.txt"),
        ("/images/a/images/x.y.png", "/images/a/labels/x.y.txt"),
        ("/a/b/x.jpg", "/a/b/x.txt"),
    ],
)
def test_where_labels_lie(image: str, label: str) -> None:
    assert label_path(Path(image)) == Path(label)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_size_told_is_the_upright_one(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (30, 20)).save(path, exif=exif)
    assert check_image(path) == ((20, 30) if orientation > 4 else (30, 20), [])
