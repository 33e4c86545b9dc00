"""Mosaic: canvas pixels exactly, labels and polygons to 1e-4, through the renderer that training uses."""

from __future__ import annotations

import numpy as np
import pytest

from tests.fidelity.harness import Case, assert_close, cases
from yolocore.data.mosaic import place_tiles, render, tile_polygon, tile_rows


@pytest.mark.parametrize("case", cases("mosaic"), ids=str)
def test_mosaic(case: Case) -> None:
    side, order = case.meta["s"], case.meta["order"]
    canvas_hw = (2 * side, 2 * side)
    tiles = place_tiles([case.inputs[f"im{i}"] for i in order], tuple(case.meta["center_yx"]), side)
    canvas = render(tiles, canvas_hw, np.eye(3), canvas_hw)
    np.testing.assert_array_equal(canvas, case.outputs["canvas"])

    placed = list(zip(tiles, order, strict=True))
    rows = np.concatenate([tile_rows(tile, case.inputs[f"labels{i}"], 2 * side) for tile, i in placed])
    assert_close(rows, case.outputs["labels"], 1e-4, "labels")
    if case.meta["segments"]:
        outlines = [
            tile_polygon(tile, polygon, 2 * side)
            for tile, i in placed
            for polygon in case.inputs[f"segments{i}"]
        ]
        assert_close(np.array(outlines), case.outputs["segments"], 1e-4, "segments")
