"""Made-up predictions with the loads of immature, half-trained and mature weights.

Decoded rows over a grid of places, of which a stated number pass the score threshold of validation, around
labels that the better weights find. It must not know who judges them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

CLASSES = 3
LABELS = 14
SIDE_PX = 640
NUM_ROWS = 25_200


@dataclass(frozen=True)
class Load:
    """What a picture of one stage of training looks like to suppression.

    `candidates` pairs of place and class pass 0.001; `classes_each` classes are said of each place. Boxes lie
    round a share `found` of the labels: their centres `spread_px` off (mean of a normal's width, drawn for
    each box), their sides by a factor of `shape` (one sigma of its logarithm). The score falls with the
    distance, over `reach_px`, from `best`, and is noisy by `noise` (one sigma of its logarithm).
    """

    name: str
    candidates: int
    classes_each: int
    found: float
    spread_px: float
    shape: float
    reach_px: float
    best: float
    noise: float


LOADS = (
    Load("immature", 9_300, 3, 1.0, 22.0, 0.35, 400.0, 0.02, 0.4),
    Load("half-trained", 3_200, 1, 0.8, 30.0, 0.45, 25.0, 0.4, 0.8),
    Load("mature", 3_400, 1, 1.0, 24.0, 0.18, 8.0, 0.95, 0.2),
)


def made_picture(load: Load, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return decoded rows (25200, 8) and labels (14, 5) class, x1, y1, x2, y2 of one picture."""
    centre = rng.uniform(80, SIDE_PX - 80, (LABELS, 2))
    size = rng.uniform(50, 110, (LABELS, 2))
    cls = rng.choice(CLASSES, LABELS, p=(0.6, 0.2, 0.2))
    labels = np.concatenate((cls[:, None], centre - size / 2, centre + size / 2), 1)
    rows = np.full((NUM_ROWS, 5 + CLASSES), 0.5)
    rows[:, 4] = 1e-5
    count = load.candidates // load.classes_each
    places = rng.choice(NUM_ROWS, count, replace=False)
    of = rng.choice(max(int(LABELS * load.found), 1), count)
    off = rng.normal(0, 1, (count, 2)) * rng.exponential(load.spread_px, (count, 1))
    rows[places, :2] = centre[of] + off
    rows[places, 2:4] = size[of] * np.exp(rng.normal(0, load.shape, (count, 2)))
    fall = np.exp(-np.hypot(*off.T) / load.reach_px + rng.normal(0, load.noise, count))
    rows[places, 4] = (load.best * fall).clip(0.0025, 0.99)
    if load.classes_each == 1:
        rows[places, 5:] = 1e-4
        rows[places, 5 + cls[of]] = 0.95
    return torch.from_numpy(rows).float(), torch.from_numpy(labels).float()


def made_pictures(load: Load, count: int, seed: int = 0) -> tuple[Tensor, list[Tensor]]:
    """Return decoded rows (count, 25200, 8) and the labels of each picture."""
    pictures = [made_picture(load, np.random.default_rng((seed, number))) for number in range(count)]
    return torch.stack([rows for rows, _ in pictures]), [labels for _, labels in pictures]


def num_candidates(decoded: Tensor, conf_thres: float = 0.001) -> float:
    """Return how many pairs of place and class pass, on average over pictures (b, n, 5 + classes)."""
    passing = (decoded[..., 4:5] > conf_thres) & (decoded[..., 5:] * decoded[..., 4:5] > conf_thres)
    return float(passing.sum() / len(decoded))
