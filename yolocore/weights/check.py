"""Compares what a file computes with what its source computes, on pictures made for it.

It must not know file formats or networks: arrays in, differences out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
FEW = 1  # rows that may differ at a threshold, beside SHARE of all
SHARE = 0.02


@dataclass(frozen=True)
class Tolerance:
    """How far numbers may lie apart: boxes in pixels plus a share of the value, scores plainly."""

    box_px: float
    box_share: float
    score: float


SINGLE = Tolerance(box_px=0.01, box_share=1e-4, score=1e-4)
HALF = Tolerance(box_px=1.0, box_share=0.05, score=0.03)


@dataclass(frozen=True)
class Difference:
    """Of one input the largest differences; relative ones count from a value of 0.001 up.

    `rows` are those compared; `unmatched` those that only one side has, which happens to suppressed boxes.
    """

    probe: str
    shape: tuple[int, ...]
    rows: int
    box_max_abs_px: float
    box_max_rel: float
    score_max_abs: float
    score_max_rel: float
    unmatched: int
    ok: bool

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {key: list(value) if key == "shape" else value for key, value in asdict(self).items()}


def probes(shapes: Sequence[tuple[int, int, int, int]]) -> Iterator[tuple[str, Floats]]:
    """Yield named pictures (b, 3, h, w) from 0 to 1 of each shape, always the same: noise, and scenery.

    Scenery has structure at all scales, falling with frequency as in photographs.
    """
    for number, shape in enumerate(shapes):
        rng = np.random.default_rng(number)
        yield "noise", rng.random(shape, np.float32)
        yield "scenery", _scenery(rng, shape)


def _scenery(rng: np.random.Generator, shape: tuple[int, int, int, int]) -> Floats:
    *_, height, width = shape
    total = np.zeros(shape, np.float32)
    cell = max(height, width)
    while cell >= 2:
        rows, columns = -(-height // cell), -(-width // cell)
        coarse = rng.standard_normal((*shape[:2], rows, columns), np.float32)
        blocks = coarse.repeat(cell, 2).repeat(cell, 3)[..., :height, :width]
        total += blocks * np.float32(cell / max(height, width)) ** np.float32(0.5)
        cell //= 2
    low, high = total.min(), total.max()
    scenery: Floats = ((total - low) / max(float(high - low), 1e-6)).astype(np.float32)
    return scenery


def compare_rows(
    probe: str, shape: tuple[int, ...], own: Floats, given: Floats, tol: Tolerance
) -> Difference:
    """Compare decoded rows (b, n, 5 + classes): four box numbers in pixels, then scores."""
    if own.shape != given.shape:
        return _unlike(probe, shape, len(own.reshape(-1)))
    return _difference(probe, shape, own.reshape(-1, own.shape[-1]), given.reshape(own.shape), tol, 0)


def compare_detections(
    probe: str, shape: tuple[int, ...], own: Floats, given: Floats, tol: Tolerance
) -> Difference:
    """Compare detections (k, 7): picture, x1, y1, x2, y2, score, class, in any order.

    Two ways to compute an overlap may round it to different sides of the threshold, so a few rows may be
    missing on either side.
    """
    pairs = _paired(own, given, tol)
    unmatched = len(own) + len(given) - 2 * len(pairs)
    left, right = own[[a for a, _ in pairs]], given[[b for _, b in pairs]]
    return _difference(probe, shape, left[:, 1:6], right[:, 1:6], tol, unmatched)


def _paired(own: Floats, given: Floats, tol: Tolerance) -> list[tuple[int, int]]:
    """Return pairs of places whose picture, class, box and score agree, each place at most once."""
    free = np.ones(len(given), np.bool_)
    pairs = []
    for place, row in enumerate(own):
        near = free & (given[:, 0] == row[0]) & (given[:, 6] == row[6])
        near &= (np.abs(given[:, 1:5] - row[1:5]) <= tol.box_px + tol.box_share * np.abs(row[1:5])).all(1)
        near &= np.abs(given[:, 5] - row[5]) <= tol.score
        if near.any():
            partner = int(near.argmax())
            free[partner] = False
            pairs.append((place, partner))
    return pairs


def _difference(
    probe: str, shape: tuple[int, ...], own: Floats, given: Floats, tol: Tolerance, unmatched: int
) -> Difference:
    own, given = own.reshape(-1, own.shape[-1]), given.reshape(-1, own.shape[-1])
    gap = np.abs(own - given)
    relative = gap / np.maximum(np.abs(own), 1e-3)
    near = (gap[:, :4] <= tol.box_px + tol.box_share * np.abs(own[:, :4])).all()
    near = near and (gap[:, 4:] <= tol.score).all()  # false for what is not a number, too
    return Difference(
        probe=probe,
        shape=shape,
        rows=len(own),
        box_max_abs_px=_largest(gap[:, :4]),
        box_max_rel=_largest(relative[:, :4]),
        score_max_abs=_largest(gap[:, 4:]),
        score_max_rel=_largest(relative[:, 4:]),
        unmatched=unmatched,
        ok=bool(near) and unmatched <= FEW + SHARE * (len(own) + unmatched),
    )


def _largest(values: Floats) -> float:
    return float(values.max()) if values.size else 0.0


def _unlike(probe: str, shape: tuple[int, ...], rows: int) -> Difference:
    inf = float("inf")
    return Difference(probe, shape, 0, inf, inf, inf, inf, rows, ok=False)
