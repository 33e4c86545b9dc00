"""Collation, plain and in quads: pixels exactly, labels to 1e-4."""

from __future__ import annotations

import numpy as np
import pytest

from tests.fidelity.harness import Case, assert_close, cases
from yolocore.data.collate import ImageShape, Item, apply_quad, collate


@pytest.mark.parametrize("case", cases("collate"), ids=str)
def test_collate(case: Case) -> None:
    items = []
    for number in range(case.meta["n"]):
        bgr = np.ascontiguousarray(case.inputs[f"im{number}"][::-1].transpose(1, 2, 0))
        shape = ImageShape((number, number), (1.0, 1.0), (0.0, 0.0))
        items.append(Item(bgr, case.inputs[f"labels{number}"][:, 1:], f"f{number}", shape))
    batch = collate(items)
    assert batch.paths == case.result["plain_paths"]
    np.testing.assert_array_equal(batch.images.numpy(), case.outputs["plain_im"])
    assert_close(batch.targets, case.outputs["plain_labels"], 1e-4, "labels")

    quads = apply_quad(batch, case.meta["coin"])
    assert quads.paths == case.result["quad_paths"]
    assert quads.shapes is not None
    assert [list(shape.original_hw) for shape in quads.shapes] == case.result["quad_shapes"]
    np.testing.assert_array_equal(quads.images.numpy(), case.outputs["quad_im"])
    assert_close(quads.targets, case.outputs["quad_labels"], 1e-4, "quad labels")
