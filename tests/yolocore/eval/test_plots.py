"""Figures are written for ordinary, empty and awkward results; matplotlib is not loaded before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from yolocore.eval.annotate import annotate
from yolocore.eval.metrics import DetectionMetrics, Judged, summarize
from yolocore.eval.plots import (
    _shown,
    draw_batch,
    draw_predictions,
    plot_confusion,
    plot_curves,
    plot_epochs,
    plot_labels,
)
from yolocore.eval.validate import Sample

AWKWARD = ["$x^", "_hidden", "红细胞"]


def some_metrics(num_classes: int) -> DetectionMetrics:
    rng = np.random.default_rng(0)
    predicted, true = rng.integers(0, num_classes, 200), rng.integers(0, num_classes, 120)
    return summarize(Judged(rng.random((200, 10)) < 0.4, rng.random(200), predicted, true), num_classes)


def is_picture(path: Path) -> bool:
    image = cv2.imread(str(path))
    return image is not None and min(image.shape[:2]) > 100 and float(image.std()) > 1


@pytest.mark.parametrize(
    "names", [AWKWARD, [f"c{number}" for number in range(25)], []], ids=["few", "many", "none"]
)
def test_curves(tmp_path: Path, names: list[str]) -> None:
    empty = np.zeros(0, np.int64)
    nothing = summarize(Judged(np.zeros((0, 10), np.bool_), np.zeros(0), empty, empty), 1)
    paths = plot_curves(some_metrics(len(names)) if names else nothing, names, tmp_path)
    assert [path.name for path in paths] == ["PR_curve.png", "P_curve.png", "R_curve.png", "F1_curve.png"]
    assert all(is_picture(path) for path in paths)


@pytest.mark.parametrize("num_classes", [1, 3, 40])
def test_confusion(tmp_path: Path, num_classes: int) -> None:
    counts = np.random.default_rng(0).integers(0, 9, (num_classes + 1, num_classes + 1))
    counts[:, 0] = 0
    assert is_picture(plot_confusion(counts, AWKWARD[:num_classes], tmp_path / "confusion_matrix.png"))


def test_epochs_with_gaps(tmp_path: Path) -> None:
    parts = {"box": 0.1, "obj": 0.2, "cls": None}
    rows = [
        {"epoch": 0, "train": parts, "val": None},
        {"epoch": 1, "train": parts, "val": parts, "map50": 0.5},
    ]
    assert is_picture(plot_epochs(rows, tmp_path / "results.png"))
    assert is_picture(plot_epochs([], tmp_path / "empty.png"))


@pytest.mark.parametrize("num_samples", [1, 2, 5])
def test_predictions(tmp_path: Path, num_samples: int) -> None:
    rng = np.random.default_rng(0)
    samples = [
        Sample(
            path=f"folder/{number}.jpg",
            image=rng.integers(0, 255, (64 + 8 * number, 96, 3), dtype=np.uint8),
            detections=np.array([[10, 10, 50, 40, 0.9, 2], [0, 0, 9, 9, 0.1, 0]], np.float32),
            labels=np.array([[7, 12, 12, 52, 42]], np.float32),
        )
        for number in range(num_samples)
    ]
    path = draw_predictions(samples, AWKWARD, tmp_path / "predictions.jpg")
    assert is_picture(path)
    image = cv2.imread(str(path))
    assert image is not None
    assert image.shape[1] == 640 * min(num_samples, 2)
    assert image.shape[0] % (round(320 * (56 + 8 * num_samples) / 96) + 16) == 0  # the tallest, and a caption


@pytest.mark.parametrize(("num_labels", "num_classes"), [(0, 1), (3, 3), (5000, 40)])
def test_labels(tmp_path: Path, num_labels: int, num_classes: int) -> None:
    rng = np.random.default_rng(0)
    boxes = rng.random((num_labels, 4), np.float32)
    rows = np.column_stack((rng.integers(0, num_classes, num_labels), boxes)).astype(np.float32)
    assert is_picture(plot_labels(rows, (AWKWARD * 14)[:num_classes], tmp_path / "labels.png"))


@pytest.mark.parametrize("num_images", [1, 5, 20])
def test_a_batch_shows_at_most_sixteen_images_with_their_boxes(tmp_path: Path, num_images: int) -> None:
    images = np.full((num_images, 64, 64, 3), 128, np.uint8)
    targets = np.array([[num_images - 1, 0, 0.5, 0.5, 0.5, 0.5], [0, 1, 0.5, 0.5, 0.25, 0.5]], np.float32)
    path = draw_batch(images, targets, ["a", "b"], tmp_path / "train_batch0.jpg")
    image = cv2.imread(str(path))
    assert image is not None
    assert image.shape == (320 * -(-min(num_images, 16) // 4), 320 * min(num_images, 4), 3)
    assert abs(int(image[160, 120, 2]) - 230) < 40  # the left side of the orange box


def test_boxes_are_drawn_into_a_copy_at_the_size_of_the_picture() -> None:
    image = np.zeros((900, 1600, 3), np.uint8)
    rows = np.array([[100, 200, 500, 600, 0.9, 0]], np.float32)
    drawn = annotate(image, rows, ["a"])
    assert not image.any() and drawn.shape == image.shape
    assert drawn[400, 100].tolist() == [178, 114, 0]  # BGR of the first colour
    assert not drawn[400, 300].any()


def test_a_picture_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    sample = Sample("a.jpg", np.zeros((8, 8, 3), np.uint8), np.zeros((0, 6)), np.zeros((0, 5)))
    with pytest.raises(OSError, match="could not be written"):
        draw_predictions([sample], [], tmp_path / "absent" / "predictions.jpg")


def test_importing_the_module_does_not_load_matplotlib() -> None:
    program = "import sys, yolocore.eval.plots; sys.exit('matplotlib' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[3], check=False).returncode
        == 0
    )


def test_a_picture_shows_the_best_class_of_each_place_on_top() -> None:
    detections = np.array(
        [[0, 0, 10, 10, 0.9, 3], [0, 0, 10, 11, 0.6, 1], [50, 50, 60, 60, 0.5, 2], [0, 0, 9, 9, 0.1, 0]],
        np.float32,
    )
    assert _shown(detections, 0.25)[:, 5].tolist() == [2, 3]
    assert len(_shown(detections[:0], 0.25)) == 0
