"""Drawing pictures more often the rarer and the worse found their classes are.

Pure functions of counts, rows and per-class scores. It knows nothing of loaders, files or validation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from yolocore.data.draws import generator
from yolocore.data.geometry import FloatArray

Weights = npt.NDArray[np.float64]


def class_counts(rows_per_image: Sequence[FloatArray], num_classes: int) -> npt.NDArray[np.int64]:
    """Return how many of all rows `class x y w h` each class has, (num_classes,)."""
    _, classes = _classes(rows_per_image)
    return np.bincount(classes, minlength=num_classes)


def class_weights(counts: npt.NDArray[np.integer[Any]]) -> Weights:
    """Return a weight for each class, (num_classes,), inverse to its count and 1 on average.

    A class without labels counts as one with a single label.
    """
    inverse = 1.0 / np.maximum(np.asarray(counts), 1)
    weights: Weights = inverse / inverse.sum() * len(inverse)
    return weights


def image_weights(
    rows_per_image: Sequence[FloatArray],
    weights: Weights,
    class_maps: npt.NDArray[np.floating[Any]],
) -> Weights:
    """Return a weight for each picture, (n,): the sum over its labels of w (1 - mAP)^2 / num_classes.

    `weights` (num_classes,) are the classes', `class_maps` (num_classes,) their mAP50-95 of the last
    validation. A picture without labels has none.
    """
    per_class = weights * (1.0 - np.asarray(class_maps, dtype=np.float64)) ** 2 / len(weights)
    numbers, classes = _classes(rows_per_image)
    summed = np.bincount(numbers, weights=per_class[classes], minlength=len(rows_per_image))
    return summed.astype(np.float64)


def weighted_order(seed: int, epoch: int, weights: Weights) -> npt.NDArray[np.int64]:
    """Draw as many pictures as there are weights, with replacement, each in proportion to its weight.

    Where nothing has weight, all have the same.
    """
    if not weights.sum() > 0:
        weights = np.ones_like(weights)
    steps = np.cumsum(weights)
    numbers = generator(seed, epoch, 0, "image-weights").random(len(weights))
    return np.searchsorted(steps / steps[-1], numbers, side="right").astype(np.int64)


def _classes(rows_per_image: Sequence[FloatArray]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return for all rows, one after the other, the number of their picture and their class."""
    numbers = np.repeat(np.arange(len(rows_per_image)), [len(rows) for rows in rows_per_image])
    classes = [rows[:, 0].astype(np.int64) for rows in rows_per_image]
    return numbers, np.concatenate([np.empty(0, dtype=np.int64), *classes])
