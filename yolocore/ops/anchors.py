"""How well anchors fit the sizes of labels, and finding ones that fit better.

What no anchor comes near can never be matched, nor learned. Plain numbers in, plain numbers out (numpy); it
must not know datasets, networks, strides or what follows from a bad fit. The formulas are those of YOLOv5's
auto-anchor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

GOOD_RECALL = 0.98
MIN_LABEL_PX = 2.0  # a label smaller than this both ways says nothing about anchors
MIN_ANCHOR_PX = 2.0
MIN_SIDE_PX = 0.01  # thinner is a line, and a centre of lines would be an anchor without area
NUM_STARTS = 30
MAX_CLUSTERED = 20_000  # clustering is only the start; more labels make it slower, not better
MUTATION_SHARE, MUTATION_SIGMA, MUTATION_RANGE = 0.9, 0.1, (0.3, 3.0)
BLOCK = 4096  # labels judged at a time: their ratios to a dozen anchors stay in the processor's cache


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
    """Return (labels, anchors): by which factor the worse side agrees, 1 = equal, 0 = not at all.

    Sizes (n, 2) may be 0, which agrees with nothing; anchors (m, 2) are above 0.
    """
    return np.ascontiguousarray(_ratios(sizes_wh_px, anchors_wh_px).T)


def anchor_fit(sizes_wh_px: Floats, anchors_wh_px: Floats, anchor_t: float) -> AnchorFit:
    """Judge anchors (m, 2) by label sizes (n, 2), n > 0; one matches where no side is `anchor_t` times off.

    Source of the measure: YOLOv5's best possible recall, without its random change of scale.
    """
    matched = _ratios(sizes_wh_px, anchors_wh_px) > 1 / anchor_t
    return AnchorFit(recall=float(matched.any(0).mean()), per_label=float(matched.sum(0).mean()))


def anchor_fitness(sizes_wh_px: Floats, anchors_wh_px: Floats, anchor_t: float) -> float:
    """Return what evolution maximises: the mean over labels (n, 2), n > 0, of their best ratio to an anchor.

    A best ratio that is no match, 1 / `anchor_t` or less, counts as 0.
    """
    total = 0.0
    for start in range(0, len(sizes_wh_px), BLOCK):
        best = _ratios(sizes_wh_px[start : start + BLOCK], anchors_wh_px).max(0)
        total += float(best[best > 1 / anchor_t].sum(dtype=np.float64))
    return total / len(sizes_wh_px)


def telling_sizes(sizes_wh_px: Floats) -> Floats:
    """Return the sizes (m, 2) that anchors are fitted to: a side of 2 px or more, none missing, NaN or 0."""
    kept = np.isfinite(sizes_wh_px).all(1) & (sizes_wh_px >= MIN_LABEL_PX).any(1)
    return sizes_wh_px[kept & (sizes_wh_px >= MIN_SIDE_PX).all(1)]


def evolve_anchors(
    sizes_wh_px: Floats,
    num_anchors: int,
    imgsz: int,
    anchor_t: float,
    rng: np.random.Generator,
    generations: int = 1000,
) -> NDArray[np.float64]:
    """Return anchors (num_anchors, 2) in pixels, sorted by area, fitted to label sizes (n, 2) in pixels.

    Begins at the centres of k-means, or at random sizes up to `imgsz` where labels are too few or too alike
    for so many centres, and keeps random changes that improve `anchor_fitness`. The result depends on the
    arguments and the state of `rng` alone.
    """
    sizes = telling_sizes(sizes_wh_px)
    anchors = _centres(sizes, num_anchors, rng)
    if anchors is None:
        anchors = np.sort(rng.random(2 * num_anchors)).reshape(num_anchors, 2) * imgsz
        anchors = np.maximum(anchors, MIN_ANCHOR_PX)
    if len(sizes):
        anchors = _improve(anchors, sizes.astype(np.float32), anchor_t, rng, generations)
    return anchors[np.argsort(anchors.prod(1), kind="stable")]


def _ratios(sizes: Floats, anchors: Floats) -> Floats:
    """Return (anchors, labels): long rows are quick to reduce over anchors."""
    ratios: list[Floats] = []
    for axis in (0, 1):
        labels, wanted = np.ascontiguousarray(sizes[:, axis]), anchors[:, axis, None]
        # smaller / larger = min(r, 1 / r), without dividing by the 0 of a label that has no width or height
        ratios.append(np.minimum(labels, wanted) / np.maximum(labels, wanted))
    return np.minimum(*ratios)


def _centres(sizes: Floats, num_anchors: int, rng: np.random.Generator) -> NDArray[np.float64] | None:
    """Return k-means centres (num_anchors, 2), both axes at equal weight, None if there are not so many."""
    if len(sizes) < num_anchors or (np.ptp(sizes, axis=0) == 0).any():
        return None
    from scipy.cluster.vq import kmeans  # slow to import, and most runs keep their anchors

    if len(sizes) > MAX_CLUSTERED:
        sizes = sizes[rng.choice(len(sizes), MAX_CLUSTERED, replace=False)]
    points = sizes.astype(np.float64)
    spread = points.std(0)
    centres, _ = kmeans(points / spread, num_anchors, iter=NUM_STARTS, rng=rng)
    return centres * spread if len(centres) == num_anchors else None


def _improve(
    anchors: NDArray[np.float64],
    sizes: Floats,
    anchor_t: float,
    rng: np.random.Generator,
    generations: int,
) -> NDArray[np.float64]:
    """Return the fittest of a line of anchors, each a random change of the fittest before it."""
    fitness = anchor_fitness(sizes, anchors.astype(np.float32), anchor_t)
    for _ in range(generations):
        mutant = np.maximum(anchors * _mutation(anchors.shape, rng), MIN_ANCHOR_PX)
        mutant_fitness = anchor_fitness(sizes, mutant.astype(np.float32), anchor_t)
        if mutant_fitness > fitness:
            anchors, fitness = mutant, mutant_fitness
    return anchors


def _mutation(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw factors around 1, most of them different from it, at least one."""
    while True:
        chosen = rng.random(shape) < MUTATION_SHARE
        change = chosen * rng.random() * rng.standard_normal(shape) * MUTATION_SIGMA
        factors: NDArray[np.float64] = np.clip(change + 1, *MUTATION_RANGE)
        if (factors != 1).any():
            return factors
