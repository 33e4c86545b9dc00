"""Letterbox: sizes, ratios, padding and pixels of the golden cases, exactly."""

from __future__ import annotations

import numpy as np
import pytest

from tests.fidelity.harness import Case, assert_close, cases
from yolocore.data.letterbox import apply_letterbox, plan_letterbox


@pytest.mark.parametrize("case", cases("letterbox"), ids=str)
def test_letterbox(case: Case) -> None:
    for number, (given, expected) in enumerate(zip(case.meta["cases"], case.result["cases"], strict=True)):
        options = dict(given["kw"])
        shape = options.pop("new_shape")
        plan = plan_letterbox(
            tuple(given["hw"]),
            (shape, shape) if isinstance(shape, int) else tuple(shape),
            auto=options.pop("auto", True),
            fill=options.pop("scaleFill", False),
            upscale=options.pop("scaleup", True),
            stride=options.pop("stride", 32),
        )
        assert not options, "an argument this test does not know"
        image = apply_letterbox(case.inputs[f"im{number}"], plan)
        assert list(image.shape) == expected["shape"]
        assert_close(plan.ratio_wh, expected["ratio_wh"], 1e-9, "ratio")
        assert_close(plan.pad_wh, expected["pad_wh"], 1e-9, "pad")
        np.testing.assert_array_equal(image, case.outputs[f"im{number}"])
