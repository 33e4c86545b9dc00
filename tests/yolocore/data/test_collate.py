"""Batches: layout, numbering, and the copy with pinned tensors' fields."""

from __future__ import annotations

import numpy as np
import torch

from yolocore.data.collate import Item, apply_quad, collate, draw_quad, number_targets


def item(number: int, rows: int = 1) -> Item:
    image = np.random.default_rng(number).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    return Item(image, np.full((rows, 5), number, dtype=np.float32), f"p{number}")


def test_images_are_rgb_and_channels_last() -> None:
    items = [item(0), item(1, rows=0), item(2, rows=2)]
    batch = collate(items, epoch=3, index=4, positions=range(12, 15))
    assert len(batch) == 3
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    for number, one in enumerate(items):
        np.testing.assert_array_equal(batch.images[number].permute(1, 2, 0), one.image[:, :, ::-1])
    np.testing.assert_array_equal(batch.targets[:, 0], [0, 2, 2])
    assert (batch.epoch, batch.index, batch.positions) == (3, 4, [12, 13, 14])
    assert (batch.paths, batch.shapes, batch.matches) == (["p0", "p1", "p2"], None, None)


def test_no_targets_have_six_columns() -> None:
    assert number_targets([]).shape == (0, 6)
    assert collate([item(0, rows=0)]).targets.shape == (0, 6)


def test_quads_drop_incomplete_fours() -> None:
    batch = collate([item(n) for n in range(6)])
    coins = draw_quad(np.random.default_rng(0), 1)
    quads = apply_quad(batch, coins)
    assert quads.images.shape == (1, 3, 16, 20)
    assert quads.images.is_contiguous(memory_format=torch.channels_last)


def test_quads_keep_the_place_in_the_run() -> None:
    batch = collate([item(n) for n in range(4)], epoch=3, index=4, positions=range(16, 20))
    quads = apply_quad(batch, [0.9])
    assert (quads.epoch, quads.index, quads.positions) == (3, 4, [16, 17, 18, 19])
    assert quads.paths == ["p0"]
    assert quads.input_hw == (16, 20)
