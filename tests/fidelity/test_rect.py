"""Rectangular batches: order, batch shapes, and each item's shape, ratio, padding and first label.

Once as validation makes them, once as training does, with all augmentation off.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.fidelity.harness import Case, assert_close, cases
from yolocore.data.augment import AugmentConfig
from yolocore.data.dataset import TrainSamples, ValSamples
from yolocore.data.files import Sample, rows_array
from yolocore.data.images import ImageStore
from yolocore.data.loader import TrainLoader
from yolocore.data.rect import plan_rectangles

UNCHANGED = AugmentConfig(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


def build_samples(case: Case, folder: Path) -> list[Sample]:
    samples = []
    for number, (width, height) in enumerate(case.result["wh_by_number"]):
        path = folder / f"{number:03d}.png"
        cv2.imwrite(str(path), np.full((height, width, 3), number, dtype=np.uint8))
        rows = rows_array([(number % 3, 0.5, 0.5, 0.4, 0.3)])
        samples.append(Sample(path, "val", width, height, rows, (None,), name=path.name))
    return samples


@pytest.mark.parametrize("case", cases("rect"), ids=str)
def test_rect(case: Case, tmp_path: Path) -> None:
    samples = build_samples(case, tmp_path)
    imgsz, batch_size = case.meta["imgsz"], case.meta["bs"]
    store = ImageStore(samples, imgsz, area=True)
    rect = ValSamples(samples, store, imgsz, batch_size, stride=case.meta["stride"], pad=case.meta["pad"])
    assert [samples[i].name for i in rect.plan.order] == case.result["order"]
    assert [list(shape) for shape in rect.plan.shapes_hw] == case.result["batch_shapes_hw"]
    batch_of = [batch for batch in range(rect.num_batches) for _ in rect.positions(batch)]
    assert batch_of == case.result["batch_index"]
    for position, expected in enumerate(case.result["items"]):
        item = rect.item(position)
        assert item.path == expected["file"]
        height, width, channels = item.image.shape
        assert [channels, height, width] == expected["tensor_shape"]
        assert item.shape is not None
        assert list(item.shape.original_hw) == expected["h0w0"]
        assert_close(item.shape.ratio_hw, expected["ratio_hw"], 1e-9, "ratio")
        assert_close(item.shape.pad_wh, expected["pad_wh"], 1e-9, "pad")
        assert_close(item.rows[0], expected["label"][1:], 1e-4, "label")


@pytest.mark.parametrize("case", cases("rect"), ids=str)
def test_rect_training(case: Case, tmp_path: Path) -> None:
    samples = build_samples(case, tmp_path)
    imgsz, batch_size = case.meta["imgsz"], case.meta["bs"]
    plan = plan_rectangles(
        [(sample.height, sample.width) for sample in samples],
        batch_size=batch_size,
        imgsz=imgsz,
        stride=case.meta["stride"],
        pad=case.meta["pad"],
    )
    train = TrainSamples(samples, ImageStore(samples, imgsz), imgsz, UNCHANGED, seed=0, rect=plan)
    with TrainLoader(train, batch_size, seed=0, num_epochs=1) as loader:
        batches = list(loader.epoch(0))
    assert [list(batch.images.shape[2:]) for batch in batches] == case.result["batch_shapes_hw"]
    paths = [path for batch in batches for path in batch.paths]
    assert paths == case.result["order"]
    labels = np.concatenate([batch.targets.numpy()[:, 1:] for batch in batches])
    for label, expected in zip(labels, case.result["items"], strict=True):
        if max(expected["tensor_shape"]) <= imgsz:  # larger frames enlarge in training only
            assert_close(label, expected["label"][1:], 1e-4, "label")
