"""How well anchors fit the sizes of labels: what no anchor comes near can never be matched, nor learned.

Plain numbers in, plain numbers out (numpy); it must not know datasets, networks or what follows from a bad
fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

GOOD_RECALL = 0.98


@dataclass(frozen=True)
class AnchorFit:
    """`recall` is the share of labels that some anchor can match, `per_label` how many can on average."""

    recall: float
    per_label: float

    @property
    def is_good(self) -> bool:
        """Whether the anchors need no thought."""
        return self.recall > GOOD_RECALL


def side_ratios(sizes_wh_px: Floats, anchors_wh_px: Floats) -> Floats:
    """Return (labels, anchors): by which factor the worse side agrees, 1 = equal, 0 = not at all."""
    with np.errstate(divide="ignore"):  # a label without width or height agrees with nothing
        ratio = sizes_wh_px[:, None] / anchors_wh_px[None]
        agreement: Floats = np.minimum(ratio, 1 / ratio).min(2)
    return agreement


def anchor_fit(sizes_wh_px: Floats, anchors_wh_px: Floats, anchor_t: float) -> AnchorFit:
    """Judge anchors (m, 2) by label sizes (n, 2), n > 0; one matches where no side is `anchor_t` times off.

    Source of the measure: YOLOv5's best possible recall, without its random change of scale.
    """
    matched = side_ratios(sizes_wh_px, anchors_wh_px) > 1 / anchor_t
    return AnchorFit(recall=float(matched.any(1).mean()), per_label=float(matched.sum(1).mean()))
