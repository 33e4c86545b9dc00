"""Multi-scale: the drawn sizes, the shapes they give, and pictures resized on the device."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from yolocore.data.collate import Batch, Item, collate
from yolocore.data.place import MultiScale, to_images

CPU = torch.device("cpu")


def noise_batch(height: int, width: int) -> Batch:
    pixels = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    return collate([Item(image, np.zeros((0, 5), np.float32), "") for image in pixels])


@given(st.integers(2, 40), st.sampled_from([8, 32, 64]), st.integers(0, 1000))
def test_drawn_sizes_are_multiples_from_half_to_one_and_a_half(times: int, grid: int, seed: int) -> None:
    imgsz = times * grid
    size = MultiScale(imgsz, grid).draw(np.random.default_rng(seed))
    assert size % grid == 0
    assert max(imgsz // 2 - grid, grid - 1) < size < imgsz * 3 // 2 + grid


def test_both_ends_are_drawn() -> None:
    scales = MultiScale(64, 32)
    rng = np.random.default_rng(0)
    assert {scales.draw(rng) for _ in range(200)} == {32, 64, 96} == set(scales.sizes)
    assert MultiScale(640, 32).sizes == list(range(320, 961, 32))


@pytest.mark.parametrize(
    ("hw", "size", "expected"),
    [
        ((640, 512), 480, (480, 384)),
        ((384, 640), 672, (416, 672)),
        ((640, 640), 640, None),
        ((320, 640), 640, None),
        ((1280, 1280), 640, (640, 640)),
        ((608, 608), 672, (704, 704)),  # float64: 608 * (672 / 608) is a little over 672
    ],
)
def test_shapes(hw: tuple[int, int], size: int, expected: tuple[int, int] | None) -> None:
    assert MultiScale(640, 32).shape(hw, size) == expected


def test_the_largest_shape_is_known_beforehand() -> None:
    assert MultiScale(640, 32).largest((640, 640)) == (960, 960)
    assert MultiScale(640, 32).largest((384, 640)) == (576, 960)
    for imgsz in range(64, 1300, 32):
        scales = MultiScale(imgsz, 32)
        shapes = [scales.shape((imgsz, imgsz), size) or (imgsz, imgsz) for size in scales.sizes]
        assert scales.largest((imgsz, imgsz)) == max(shapes)


def test_a_batch_as_it_is_becomes_the_plain_quotient() -> None:
    batch = noise_batch(8, 12)
    images = to_images(batch, CPU, torch.float32)
    assert torch.equal(images, batch.images.to(CPU, non_blocking=True).to(torch.float32) / 255)
    assert images.stride() == (batch.images.to(torch.float32) / 255).stride()
    assert batch.input_hw == (8, 12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_resized_batch_is_interpolated_in_its_layout(dtype: torch.dtype) -> None:
    batch = replace(noise_batch(8, 12), resized_hw=(16, 24))
    assert batch.input_hw == (16, 24)
    images = to_images(batch, CPU, dtype)
    assert (images.shape, images.dtype) == ((2, 3, 16, 24), dtype)
    assert images.is_contiguous(memory_format=torch.channels_last)
    # Bilinear without aligned corners: the first column is the first pixel, the second a quarter of the next.
    rows = batch.images.to(torch.float64)[:, :, 0, :2] / 255
    atol = 2e-2 if dtype == torch.bfloat16 else 1e-6
    torch.testing.assert_close(images[:, :, 0, 0].double(), rows[..., 0], atol=atol, rtol=0)
    mixed = 0.75 * rows[..., 0] + 0.25 * rows[..., 1]
    torch.testing.assert_close(images[:, :, 0, 1].double(), mixed, atol=atol, rtol=0)


def test_a_size_that_could_be_nothing_is_ours_to_prevent() -> None:
    with pytest.raises(AssertionError):
        MultiScale(32, 32)
