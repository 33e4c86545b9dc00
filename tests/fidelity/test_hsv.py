"""Colour jitter: the pixels of the golden cases, exactly."""

from __future__ import annotations

import numpy as np
import pytest

from tests.fidelity.harness import Case, assert_close, cases
from yolocore.data.augment import HsvJitter, draw_hsv


class Scripted:
    """A generator whose uniform draws are given."""

    def __init__(self, draws: list[float]) -> None:
        self.draws = draws

    def uniform(self, low: float, high: float, size: int) -> np.ndarray:
        assert (low, high, size) == (-1.0, 1.0, len(self.draws))
        return np.array(self.draws)


@pytest.mark.parametrize("case", cases("hsv"), ids=str)
def test_hsv(case: Case) -> None:
    rounds = zip(case.meta["gains"], case.meta["draws"], case.result["cases"], strict=True)
    for number, (gains, draws, expected) in enumerate(rounds):
        factors = draw_hsv(Scripted(draws), *gains)  # type: ignore[arg-type]
        assert_close(factors, expected["multipliers_hsv"], 1e-12, "multipliers")
        image = case.inputs[f"im{number}"].copy()
        HsvJitter(factors).apply(image, image)
        np.testing.assert_array_equal(image[..., ::-1], case.outputs[f"im{number}"])
