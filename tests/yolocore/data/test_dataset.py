"""Items: equal keys give equal items, labels follow pixels, pictures stay as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.yolocore.data.conftest import MakeSamples
from yolocore.data.augment import AugmentConfig
from yolocore.data.collate import Item
from yolocore.data.dataset import TrainSamples, ValSamples
from yolocore.data.files import Sample, rows_array
from yolocore.data.images import ImageStore
from yolocore.data.rect import RectPlan

PLAIN = AugmentConfig(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
STRONG = AugmentConfig(
    degrees=20, translate=0.2, scale=0.9, shear=5, perspective=0.001, flipud=0.5, mosaic=0.7, mixup=0.5
)


def same(one: Item, other: Item) -> bool:
    return np.array_equal(one.image, other.image) and np.array_equal(one.rows, other.rows)


@pytest.mark.parametrize("polygons", [False, True])
def test_an_item_is_a_function_of_its_key(make_samples: MakeSamples, polygons: bool) -> None:
    samples = make_samples(6, polygons=polygons)
    config = replace(STRONG, copy_paste=0.5)
    one = TrainSamples(samples, ImageStore(samples, 64), 64, config, seed=3)
    other = TrainSamples(samples, ImageStore(samples, 64, cache="ram"), 64, config, seed=3)
    keys = [(epoch, position, position % 6) for epoch in range(2) for position in range(10)]
    items = {key: one.item(*key) for key in keys}
    for key in reversed(keys):
        assert same(items[key], other.item(*key))
        assert items[key].image.shape == (64, 64, 3)
        assert items[key].image.flags.writeable
        assert items[key].rows.dtype == np.float32
        assert (items[key].rows[:, 1:] >= 0).all()
        assert (items[key].rows[:, 1:] <= 1).all()
    assert not same(items[0, 1, 1], items[1, 1, 1])
    assert not same(items[0, 1, 1], TrainSamples(samples, one.store, 64, config, seed=4).item(0, 1, 1))


def test_without_augmentation_an_item_is_the_letterboxed_picture(make_samples: MakeSamples) -> None:
    samples = make_samples(2)
    store = ImageStore(samples, 64)
    train = TrainSamples(samples, store, 64, PLAIN, seed=0).item(0, 0, 1)
    val = ValSamples(samples, store, 64, 4, rect=False)
    assert same(train, val.item(1))


def marked_samples(folder: Path) -> list[Sample]:
    """Return pictures of one white square each on black, and its box."""
    samples = []
    for number in range(4):
        image = np.zeros((64, 64, 3), np.uint8)
        x, y = 16 + 4 * number, 20
        image[y : y + 20, x : x + 24] = 255
        path = folder / f"{number}.png"
        cv2.imwrite(str(path), image)
        rows = rows_array([(number, (x + 12) / 64, (y + 10) / 64, 24 / 64, 20 / 64)])
        samples.append(Sample(path, "train", 64, 64, rows, (None,), name=path.name))
    return samples


def assert_boxes_enclose_white(item: Item) -> int:
    """Return how many boxes were large enough to be looked into."""
    white = item.image.min(axis=2) > 200
    height, width = white.shape
    checked = 0
    for _, x, y, w, h in item.rows * (1, width, height, width, height):
        left, right, top, bottom = (round(float(v)) for v in (x - w / 2, x + w / 2, y - h / 2, y + h / 2))
        inside = white[top + 1 : bottom - 1, left + 1 : right - 1]
        if inside.size >= 20:
            assert inside.mean() > 0.9
            checked += 1
    return checked


@pytest.mark.parametrize("mosaic", [0.0, 1.0])
def test_boxes_enclose_what_they_label(tmp_path: Path, mosaic: float) -> None:
    samples = marked_samples(tmp_path)
    config = AugmentConfig(hsv_h=0, hsv_s=0, hsv_v=0, flipud=0.5, mosaic=mosaic)
    train = TrainSamples(samples, ImageStore(samples, 64), 64, config, seed=1)
    checked = sum(assert_boxes_enclose_white(train.item(0, position, position % 4)) for position in range(40))
    assert checked >= 40


def test_rectangles_hold_one_picture_in_their_batch_s_shape(tmp_path: Path) -> None:
    samples = marked_samples(tmp_path)
    plan = RectPlan(order=(2, 0, 3, 1), shapes_hw=((64, 96), (128, 64)), batch_size=2)
    config = AugmentConfig(hsv_h=0, hsv_s=0, hsv_v=0, flipud=0.5, mosaic=1, mixup=1)
    train = TrainSamples(samples, ImageStore(samples, 64), 64, config, seed=1, rect=plan)
    checked = 0
    for epoch in range(10):
        for position, index in enumerate(plan.order):
            item = train.item(epoch, position, index)
            assert item.image.shape[:2] == plan.shapes_hw[position // 2]
            assert item.path == f"{index}.png"
            assert len(item.rows) <= 1
            checked += assert_boxes_enclose_white(item)
    assert checked >= 20
    plain = TrainSamples(samples, train.store, 64, PLAIN, seed=1, rect=plan).item(0, 0, 2)
    np.testing.assert_array_equal(plain.image[:, 16:80], train.store.get(2))
    assert (plain.image[:, :16] == 114).all()


def test_partners_come_from_the_pool(make_samples: MakeSamples) -> None:
    samples = [
        replace(sample, rows=rows_array([(number, 0.5, 0.5, 0.9, 0.9)]), polygons=(None,))
        for number, sample in enumerate(make_samples(5))
    ]
    config = AugmentConfig(mosaic=1, mixup=1, scale=0, translate=0)
    train = TrainSamples(samples, ImageStore(samples, 64), 64, config, seed=1)
    pool = np.array([3, 3, 4, 3, 4])
    items = [train.item(0, position, 1, pool) for position in range(20)]
    assert {int(cls) for item in items for cls in item.rows[:, 0]} == {1, 3, 4}
    everyone = np.arange(5)
    assert all(same(train.item(0, place, 1), train.item(0, place, 1, everyone)) for place in range(5))


def test_validation_maps_boxes_back_to_the_file(make_samples: MakeSamples) -> None:
    samples = make_samples(7)
    val = ValSamples(samples, ImageStore(samples, 64, area=True), 64, 3)
    assert (len(val), val.num_batches) == (7, 3)
    assert [list(val.positions(b)) for b in range(3)] == [[0, 1, 2], [3, 4, 5], [6]]
    for position in range(7):
        sample, item = samples[val.plan.order[position]], val.item(position)
        assert item.shape is not None
        height, width = item.image.shape[:2]
        assert item.shape.original_hw == (sample.height, sample.width)
        (ratio_h, ratio_w), (pad_w, pad_h) = item.shape.ratio_hw, item.shape.pad_wh
        back_x = (item.rows[:, 1] * width - pad_w) / ratio_w / sample.width
        back_y = (item.rows[:, 2] * height - pad_h) / ratio_h / sample.height
        np.testing.assert_allclose(np.stack([back_x, back_y], 1), sample.rows[:, 1:3], atol=1e-4)
        np.testing.assert_array_equal(item.rows[:, 0], sample.rows[:, 0])
