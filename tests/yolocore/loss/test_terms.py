"""Elementwise terms at points worked out on paper."""

from __future__ import annotations

import math

import pytest
import torch

from yolocore.loss.terms import (
    binary_cross_entropy,
    blurred_cross_entropy,
    label_smoothing_targets,
    quality_focal,
)

ZERO = torch.zeros(1)


def test_label_smoothing() -> None:
    assert label_smoothing_targets(0.0) == (1.0, 0.0)
    assert label_smoothing_targets(0.1) == pytest.approx((0.95, 0.05))


def test_plain_and_weighted() -> None:
    assert binary_cross_entropy(ZERO, torch.ones(1)).item() == pytest.approx(math.log(2))
    weighted = binary_cross_entropy(ZERO, torch.ones(1), pos_weight=torch.tensor([3.0]))
    assert weighted.item() == pytest.approx(3 * math.log(2))


def test_focal_weighs_down_what_is_easy() -> None:
    focal = binary_cross_entropy(ZERO, torch.ones(1), gamma=1.5)
    assert focal.item() == pytest.approx(math.log(2) * 0.25 * 0.5**1.5)
    easy = binary_cross_entropy(torch.tensor([6.0]), torch.ones(1), gamma=1.5)
    assert easy.item() < 1e-6


def test_quality_focal_is_zero_where_the_target_is_met() -> None:
    assert quality_focal(ZERO, torch.tensor([0.5]), gamma=1.5).item() == 0
    assert quality_focal(ZERO, torch.zeros(1), gamma=2.0).item() == pytest.approx(math.log(2) * 0.75 * 0.25)


def test_blurred_forgives_confident_false_positives() -> None:
    confident = torch.tensor([8.0])
    plain = binary_cross_entropy(confident, torch.zeros(1))
    assert blurred_cross_entropy(confident, torch.zeros(1)).item() < 0.02 * plain.item()
