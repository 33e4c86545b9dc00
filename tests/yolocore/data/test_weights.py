"""Class and image weights against hand-made figures, and orders drawn by them."""

from __future__ import annotations

import numpy as np

from yolocore.data.files import rows_array
from yolocore.data.geometry import FloatArray
from yolocore.data.weights import class_counts, class_weights, image_weights, weighted_order


def rows(*classes: int) -> FloatArray:
    return rows_array([(cls, 0.5, 0.5, 0.1, 0.1) for cls in classes])


PICTURES = [rows(0, 0, 1), rows(), rows(2), rows(0)]


def test_rare_classes_weigh_more_and_absent_ones_as_one_label() -> None:
    counts = class_counts(PICTURES, 4)
    np.testing.assert_array_equal(counts, [3, 1, 1, 0])
    weights = class_weights(counts)
    np.testing.assert_allclose(weights, np.array([1 / 3, 1, 1, 1]) / (10 / 3) * 4)
    assert np.isclose(weights.sum(), 4)


def test_a_picture_weighs_what_its_labels_do() -> None:
    weights = np.array([1.0, 2.0, 3.0])
    maps = np.array([0.0, 0.5, 1.0])
    expected = [(1 + 1 + 2 * 0.25) / 3, 0, 0, 1 / 3]
    np.testing.assert_allclose(image_weights(PICTURES, weights, maps), expected)
    assert image_weights([rows()], weights, maps).tolist() == [0]


def test_an_order_holds_pictures_in_proportion() -> None:
    weights = np.tile([0.0, 1.0, 3.0, 0.0], 500)
    order = weighted_order(1, 2, weights)
    assert order.shape == weights.shape
    share = np.bincount(order % 4, minlength=4) / len(order)
    np.testing.assert_allclose(share, [0, 0.25, 0.75, 0], atol=0.04)
    assert share[0] == share[3] == 0
    np.testing.assert_array_equal(order, weighted_order(1, 2, weights))
    assert not np.array_equal(order, weighted_order(1, 3, weights))
    assert not np.array_equal(order, weighted_order(2, 2, weights))


def test_without_any_weight_all_pictures_are_alike() -> None:
    order = weighted_order(0, 0, np.zeros(1000))
    assert order.min() >= 0
    assert 0 <= order.max() < 1000
    assert len(np.unique(order)) > 550
