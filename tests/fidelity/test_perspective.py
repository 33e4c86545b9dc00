"""Random perspective: matrix and labels to 1e-4, pixels within two grey levels (OpenCV versions differ)."""

from __future__ import annotations

import numpy as np
import pytest

from tests.fidelity.harness import Case, assert_close, cases
from yolocore.data.geometry import PerspectiveDraw, map_labels, perspective_matrix
from yolocore.data.mosaic import render, whole


@pytest.mark.parametrize("case", cases("perspective"), ids=str)
def test_perspective(case: Case) -> None:
    draws = case.result["draws"]
    draw = PerspectiveDraw(
        perspective_x=draws["perspective_x"],
        perspective_y=draws["perspective_y"],
        angle_deg=draws["angle_deg"],
        scale=draws["scale"],
        shear_x_deg=draws["shear_x_deg"],
        shear_y_deg=draws["shear_y_deg"],
        translate_x=draws["translate_x_frac"],
        translate_y=draws["translate_y_frac"],
    )
    in_hw = tuple(case.meta["hw"])
    border = case.meta["border"]
    out_hw = (in_hw[0] + 2 * border[0], in_hw[1] + 2 * border[1])
    matrix = perspective_matrix(draw, in_hw, out_hw)
    assert_close(matrix, case.outputs["M"], 1e-4, "matrix")

    polygons = list(case.inputs["segments"]) if "segments" in case.inputs else None
    rows = map_labels(case.inputs["targets"], polygons, matrix, out_hw, draw.scale)
    assert_close(rows, case.outputs["targets"], 1e-4, "labels")

    image = render([whole(case.inputs["im"])], in_hw, matrix, out_hw)
    assert image.shape == case.outputs["im"].shape
    assert np.abs(image.astype(int) - case.outputs["im"]).max() <= 2
