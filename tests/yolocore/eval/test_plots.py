"""Figures are written for ordinary, empty and awkward results; matplotlib is not loaded before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from yolocore.eval.metrics import DetectionMetrics, Judged, summarize
from yolocore.eval.plots import _shown, draw_predictions, plot_confusion, plot_curves, plot_epochs
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
