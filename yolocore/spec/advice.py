"""Warnings about a model and a dataset that do not suit each other: classes, and anchors against box sizes.

It works on what was counted of the dataset (histograms of widths and heights), so it says only what these
allow: how many boxes can match at most. It must not know the pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from yolocore.errors import Problem
from yolocore.spec.layers import Plan

MATCH_FACTOR = 4.0
"""An anchor matches a box of up to this many times its width and height, or as many times less (anchor_t)."""
WANTED_SHARE = 0.98
"""Auto-anchor lets anchors be from this share of matching boxes on."""


@dataclass(frozen=True)
class DatasetFacts:
    """What is known of a dataset; histograms count boxes by fractions of the side in equal bins, 0 to 1."""

    num_classes: int
    box_widths: tuple[int, ...] = ()
    box_heights: tuple[int, ...] = ()
    picture_px: tuple[float, float] | None = None

    @classmethod
    def of_statistics(cls, num_classes: int, statistics: Mapping[str, Any]) -> Self:
        """Take what a dataset's statistics have of it; `picture_px` is the median (width, height)."""
        spreads = [statistics.get(f"image_{side}_px") for side in ("width", "height")]
        medians = [float(spread["median"]) for spread in spreads if spread]
        return cls(
            num_classes,
            tuple(statistics.get("box_width", ())),
            tuple(statistics.get("box_height", ())),
            (medians[0], medians[1]) if len(medians) == 2 else None,
        )


def advise(plan: Plan, dataset: DatasetFacts) -> tuple[Problem, ...]:
    """Return warnings about training the model on the dataset at the plan's picture size."""
    found = []
    written = plan.architecture.nc
    if written is not None and written != dataset.num_classes:
        line, column = plan.architecture.mark("nc")
        message = (
            f"nc is {written}, the dataset has {dataset.num_classes} classes; the dataset's count is used"
        )
        found.append(Problem("CLASSES_DIFFER", message, line=line, column=column, value=str(written)))
    if not plan.anchors_are_placeholders:
        found += _anchor_warnings(plan, dataset)
    return tuple(found)


def _anchor_warnings(plan: Plan, dataset: DatasetFacts) -> list[Problem]:
    if dataset.picture_px is None or not sum(dataset.box_widths) or not sum(dataset.box_heights):
        return []
    scale = max(plan.imgsz) / max(dataset.picture_px)
    sides_px = [side * scale for side in dataset.picture_px]
    histograms = (dataset.box_widths, dataset.box_heights)
    line, column = plan.architecture.mark("anchors")
    found = []
    share = min(
        _share(histogram, side, [anchor[axis] for level in plan.anchors_px for anchor in level])
        for axis, (histogram, side) in enumerate(zip(histograms, sides_px, strict=True))
    )
    if share < WANTED_SHARE:
        message = (
            f"at most {100 * share:.0f} % of the dataset's boxes can match an anchor at "
            f"{max(plan.imgsz)} pixels; auto-anchor fits them, or change anchors"
        )
        found.append(Problem("ANCHORS_MISS_BOXES", message, line=line, column=column))
    for number, level in enumerate(plan.anchors_px):
        idle = [
            (w, h)
            for w, h in level
            if not (_share(histograms[0], sides_px[0], [w]) and _share(histograms[1], sides_px[1], [h]))
        ]
        if idle:
            sizes = ", ".join(f"{w:g}x{h:g}" for w, h in idle)
            message = f"no box of the dataset is near these anchors of level {number}: {sizes} pixels"
            found.append(Problem("ANCHORS_IDLE", message, line=line, column=column, value=sizes))
    return found


def _share(histogram: Sequence[int], side_px: float, anchors_px: Sequence[float]) -> float:
    """Return at most which share of boxes has a length within the factor of one of the anchors' lengths.

    A bin counts in full as soon as part of it is near enough.
    """
    width = side_px / len(histogram)
    near = sum(
        count
        for number, count in enumerate(histogram)
        if any(
            number * width < MATCH_FACTOR * anchor and (number + 1) * width > anchor / MATCH_FACTOR
            for anchor in anchors_px
        )
    )
    return near / sum(histogram)
