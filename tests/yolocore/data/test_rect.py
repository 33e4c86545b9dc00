"""Rectangular batches for any sizes: everything fits, sides are multiples of the stride."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from yolocore.data.images import resized_hw
from yolocore.data.rect import plan_rectangles, plan_squares

sizes = st.lists(st.tuples(st.integers(10, 500), st.integers(10, 500)), min_size=1, max_size=20)


@settings(deadline=None)
@given(sizes, st.integers(1, 5), st.sampled_from([0.0, 0.5]))
def test_every_picture_fits_its_batch(sizes_hw: list[tuple[int, int]], batch: int, pad: float) -> None:
    plan = plan_rectangles(sizes_hw, batch_size=batch, imgsz=128, stride=32, pad=pad)
    assert sorted(plan.order) == list(range(len(sizes_hw)))
    for position, index in enumerate(plan.order):
        shape = plan.shapes_hw[position // batch]
        height, width = resized_hw(sizes_hw[index], 128)
        assert shape[0] % 32 == shape[1] % 32 == 0
        # One pixel of rounding up may exceed a frame without padding; letterboxing shrinks it then.
        assert height <= shape[0] + 1
        assert width <= shape[1] + 1


def test_equal_proportions_keep_their_order_and_no_pictures_give_no_batch() -> None:
    assert plan_rectangles([(10, 20), (20, 40), (5, 10)], batch_size=2, imgsz=64).order == (0, 1, 2)
    assert plan_rectangles([], batch_size=2, imgsz=64).shapes_hw == ()
    assert plan_squares(3, batch_size=2, imgsz=64).shapes_hw == ((64, 64), (64, 64))
