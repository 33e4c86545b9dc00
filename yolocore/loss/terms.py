"""Elementwise binary cross entropies of the detection loss, plain and focal.

They know nothing of maps, matches or levels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

FOCAL_ALPHA = 0.25


def label_smoothing_targets(eps: float) -> tuple[float, float]:
    """Return the class targets (true class, other classes) for label smoothing `eps`."""
    return 1.0 - 0.5 * eps, 0.5 * eps


def binary_cross_entropy(
    logits: Tensor, target: Tensor, *, pos_weight: Tensor | None = None, gamma: float = 0.0
) -> Tensor:
    """Return the elementwise loss, same shape as `logits`; focal (Lin et al. 2017) if `gamma` is positive."""
    loss = F.binary_cross_entropy_with_logits(logits, target, pos_weight=pos_weight, reduction="none")
    if gamma <= 0:
        return loss
    probability = logits.sigmoid()
    hit = target * probability + (1 - target) * (1 - probability)
    return loss * _alpha(target) * (1 - hit) ** gamma


def quality_focal(
    logits: Tensor, target: Tensor, *, pos_weight: Tensor | None = None, gamma: float
) -> Tensor:
    """Return the elementwise quality focal loss (Li et al. 2020), for targets between 0 and 1."""
    loss = F.binary_cross_entropy_with_logits(logits, target, pos_weight=pos_weight, reduction="none")
    return loss * _alpha(target) * (target - logits.sigmoid()).abs() ** gamma


def blurred_cross_entropy(logits: Tensor, target: Tensor, *, alpha: float = 0.05) -> Tensor:
    """Return the elementwise loss with missing labels forgiven: confident false positives weigh less."""
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return loss * (1 - torch.exp((logits.sigmoid() - target - 1) / (alpha + 1e-4)))


def _alpha(target: Tensor) -> Tensor:
    return target * FOCAL_ALPHA + (1 - target) * (1 - FOCAL_ALPHA)
