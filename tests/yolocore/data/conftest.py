"""A small folder of pictures with labels, as samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from yolocore.data.files import Sample, rows_array

MakeSamples = Callable[..., list[Sample]]


@pytest.fixture
def make_samples(tmp_path: Path) -> MakeSamples:
    """Write `count` noise pictures of changing size and return them; with `polygons` each row is outlined."""

    def make(count: int, *, polygons: bool = False) -> list[Sample]:
        samples = []
        for number in range(count):
            rng = np.random.default_rng(number)
            height, width = int(rng.integers(30, 90)), int(rng.integers(30, 90))
            path = tmp_path / f"{number:03d}.png"
            cv2.imwrite(str(path), rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
            rows = rows_array([(k, *rng.uniform(0.3, 0.7, 2), *rng.uniform(0.1, 0.5, 2)) for k in range(3)])
            outlines = [
                np.array([[x - w / 2, y - h / 2], [x + w / 2, y], [x, y + h / 2]], dtype=np.float32)
                for _, x, y, w, h in rows
            ]
            kept = tuple(outlines) if polygons else (None,) * 3
            samples.append(
                Sample(path, "train", width, height, rows, kept, name=path.name, content=f"c{number}")
            )
        return samples

    return make
