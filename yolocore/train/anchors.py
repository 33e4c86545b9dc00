"""Which anchors a run trains with: the model's own where they fit the labels, else ones fitted to them.

It decides and says what to tell; it must not know networks, model files or who listens. Anchors are final
before the first batch is made, and a resumed run takes them from its checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolocore.data.draws import generator
from yolocore.ops.anchors import AnchorFit, Floats, anchor_fit, evolve_anchors
from yolocore.spec.events import Log, TrainEvent, Warned
from yolocore.spec.fit import placeholders_refused

SMALL_LABEL_PX = 3.0


@dataclass(frozen=True)
class AnchorChoice:
    """Anchors (levels, anchors, 2) in pixels in the order of the strides, and how they came about.

    `before` judges the model's own (None for placeholders), `after` the chosen ones; `changed` tells whether
    they differ from the model's own; `small_labels` have a side under 3 px: they are hard to learn.
    """

    anchors_px: NDArray[np.float32]
    before: AnchorFit | None
    after: AnchorFit
    changed: bool
    small_labels: int


def choose_anchors(
    sizes_wh_px: Floats,
    current_px: Sequence[Any] | NDArray[Any] | None,
    *,
    num_levels: int,
    anchors_per_level: int,
    strides: Sequence[float],
    imgsz: int,
    anchor_t: float,
    seed: int,
    enabled: bool = True,
    jitter: Floats | None = None,
) -> AnchorChoice:
    """Return the anchors to train with on labels of these sizes (n, 2), n > 0, in pixels at `imgsz`.

    `current_px` (levels, anchors, 2) are kept if they can match more than 98% of the labels, or nothing
    better is found; None are placeholders, which are always replaced. A size of 0, NaN or infinity is a
    label that nothing matches. `jitter` (n,) scales the sizes where anchors are judged: YOLOv5 draws 0.9 to
    1.1 per picture; without it, the default, the decision is a function of the data alone. Not `enabled`
    keeps what is given, and raises ConfigError if that is placeholders: no label would match any of them.
    """
    sizes = np.where(np.isfinite(sizes_wh_px), sizes_wh_px, 0).astype(np.float32)
    assert len(sizes) and len(strides) == num_levels
    judged = sizes if jitter is None else sizes * jitter[:, None].astype(np.float32)
    shape = (num_levels, anchors_per_level, 2)
    small = int((sizes < SMALL_LABEL_PX).any(1).sum())

    before = None
    if current_px is not None:
        given = np.array(current_px, np.float32).reshape(shape)
        own = _turned(given, strides)
        before = _fit(judged, own, anchor_t)
        kept = AnchorChoice(own, before, before, not np.array_equal(own, given), small)
        if before.is_good or not enabled:
            return kept
    elif not enabled:
        raise placeholders_refused(anchors_per_level)
    rng = generator(seed, 0, 0, "autoanchor")
    evolved = evolve_anchors(sizes, num_levels * anchors_per_level, imgsz, anchor_t, rng)
    fresh = _in_stride_order(_half_exact(evolved).reshape(shape), strides)
    after = _fit(judged, fresh, anchor_t)
    if before is not None and after.recall <= before.recall:
        return kept
    return AnchorChoice(fresh, before, after, True, small)


def anchor_events(choice: AnchorChoice, imgsz: int) -> list[TrainEvent]:
    """Return what a person should be told of a choice made at `imgsz` pixels; nothing where all is well."""
    events: list[TrainEvent] = []
    after, before = choice.after, choice.before
    if choice.changed and after != before:
        instead = "" if before is None else f" instead of {before.recall:.1%}"
        pairs = ", ".join(f"{w:.0f}x{h:.0f}" for w, h in choice.anchors_px.reshape(-1, 2).tolist())
        told = f"anchors are fitted to the labels and can match {after.recall:.1%} of them{instead}: {pairs}"
        events.append(Log(message=told))
    elif choice.changed:
        events.append(Log(message="the levels of the anchors are turned round, to grow with the strides"))
    if not after.is_good:
        badly = (
            f"the anchors can match {after.recall:.1%} of the labels at {imgsz} pixels; the rest cannot be "
            "learned: change the anchors or the image size"
        )
        if choice.small_labels:
            badly += f" ({choice.small_labels} labels have a side under {SMALL_LABEL_PX:.0f} pixels)"
        events.append(Warned(code="ANCHORS_FIT_BADLY", message=badly))
    elif choice.changed and choice.small_labels:
        small = (
            f"{choice.small_labels} labels have a side under {SMALL_LABEL_PX:.0f} pixels at {imgsz} pixels"
        )
        events.append(Warned(code="LABELS_SMALL", message=f"{small}; they are hard to learn"))
    return events


def _fit(sizes: Floats, anchors: Floats, anchor_t: float) -> AnchorFit:
    return anchor_fit(sizes, anchors.reshape(-1, 2), anchor_t)


def _half_exact(anchors: Floats) -> NDArray[np.float32]:
    """Round to what half precision holds, so that delivered half-precision weights carry the same anchors."""
    return anchors.clip(max=np.finfo(np.float16).max).astype(np.float16).astype(np.float32)


def _turned(anchors: NDArray[np.float32], strides: Sequence[float]) -> NDArray[np.float32]:
    """Reverse the levels if their mean area in pixels falls from first to last where strides rise.

    In pixels, not in cells: divided by its stride, a larger anchor may look smaller.
    """
    areas = anchors.prod(2).mean(1)
    growth = float(areas[-1] - areas[0])
    opposed = growth != 0 and (growth > 0) != (strides[-1] > strides[0])
    return anchors[::-1].copy() if opposed else anchors


def _in_stride_order(anchors: NDArray[np.float32], strides: Sequence[float]) -> NDArray[np.float32]:
    """Give the levels, which come by rising area, to the strides by their rank."""
    rank = np.argsort(np.argsort(strides, kind="stable"), kind="stable")
    return anchors[rank]
