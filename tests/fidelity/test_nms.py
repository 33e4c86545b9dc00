"""Golden suppression: the same rows in the same order; rows of equal score may come in any order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.fidelity.harness import Case, cases
from yolocore.ops.nms import non_max_suppression


def canonical(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Order rows of equal score by the rest of the row."""
    return rows[np.lexsort((*rows[:, :4].T, rows[:, 5], -rows[:, 4]))]


@pytest.mark.parametrize("case", cases("nms"), ids=str)
def test_detections(case: Case) -> None:
    decoded = torch.from_numpy(case.inputs["pred"])
    labels = (
        [torch.from_numpy(case.inputs[f"labels{image}"]) for image in range(len(decoded))]
        if ("labels0" in case.inputs)
        else ()
    )
    found = non_max_suppression(decoded, labels=labels, **case.meta["kw"])
    assert [len(rows) for rows in found] == case.result["n"]
    for image, rows in enumerate(found):
        expected = case.outputs[f"det{image}"]
        assert rows.shape == expected.shape
        np.testing.assert_allclose(rows[:, 4].numpy(), expected[:, 4], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(canonical(rows.numpy()), canonical(expected), rtol=1e-6, atol=1e-6)
