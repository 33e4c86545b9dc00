"""Letterbox for any sizes: the frame is filled exactly and proportions hold."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from yolocore.data.letterbox import apply_letterbox, plan_letterbox
from yolocore.data.pixels import FILL

sides = st.integers(1, 300)


@settings(deadline=None)
@given(sides, sides, sides, sides, st.booleans())
def test_the_frame_is_filled_exactly(h: int, w: int, frame_h: int, frame_w: int, upscale: bool) -> None:
    plan = plan_letterbox((h, w), (frame_h, frame_w), upscale=upscale)
    image = np.zeros((h, w, 3), dtype=np.uint8)
    result = apply_letterbox(image, plan)
    assert result.shape == (frame_h, frame_w, 3)
    assert not np.shares_memory(result, image)
    assert (result == 0).all(axis=2).sum() == plan.size_wh[0] * plan.size_wh[1]
    assert ((result == 0) | (result == FILL)).all()
    assert upscale or plan.ratio_wh[0] <= 1


def test_a_very_thin_picture_keeps_one_pixel() -> None:
    plan = plan_letterbox((3, 4000), (64, 64))
    assert plan.size_wh == (64, 1)
