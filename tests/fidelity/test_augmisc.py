"""Mixup and copy-paste: pixels exactly, labels and polygons to 1e-4."""

from __future__ import annotations

import numpy as np
import pytest

from tests.fidelity.harness import Case, assert_close, cases
from yolocore.data.augment import apply_copy_paste, apply_mixup


@pytest.mark.parametrize("case", cases("augmisc"), ids=str)
def test_mixup_and_copy_paste(case: Case) -> None:
    given, expected = case.inputs, case.outputs
    blended = apply_mixup(given["im1"], given["im2"], case.result["mixup_ratio_of_first"])
    np.testing.assert_array_equal(blended, expected["mixup_im"])
    both = np.concatenate([given["labels1"], given["labels2"]])
    assert_close(both, expected["mixup_labels"], 1e-4, "mixup labels")

    image, rows, polygons = apply_copy_paste(
        given["im1"], given["labels1"], list(given["segments1"]), case.result["copy_paste_order"]
    )
    np.testing.assert_array_equal(image, expected["copypaste_im"])
    assert_close(rows, expected["copypaste_labels"], 1e-4, "copy-paste labels")
    assert_close(np.array(polygons), expected["copypaste_segments"], 1e-4, "copy-paste segments")
