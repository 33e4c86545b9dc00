"""What a run is given, read and checked before anything is built."""

from __future__ import annotations

import pytest

from tests.support.shapes import DEEP_MODEL, TINY_MODEL
from yolocore.train.inputs import plan_run, val_stride


@pytest.mark.parametrize(
    ("text", "stride"),
    [(TINY_MODEL, 32), (DEEP_MODEL, 64), (TINY_MODEL.replace("[24, 3, 2]", "[24, 3, 3]"), 96)],
)
def test_sides_of_validation_pictures_suit_every_row(text: str, stride: int) -> None:
    assert val_stride(plan_run(text, name="a.yaml", num_classes=2, imgsz=64)) == stride
