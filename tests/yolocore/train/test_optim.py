"""SGD on lists made once, and clipping without sorting, are torch's own bit for bit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from yolocore.train.optim import build_optimizer, clip_gradients

DECAY, MOMENTUM = 0.0005, 0.9


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)).to(
        memory_format=torch.channels_last
    )


def twins() -> tuple[nn.Module, torch.optim.Optimizer, nn.Module, torch.optim.SGD]:
    """Return the same network twice, once with our optimizer and once with torch's."""
    one = network()
    two = copy.deepcopy(one)
    ours = build_optimizer(one, name="SGD", lr=0.1, momentum=MOMENTUM, weight_decay=DECAY)
    named = dict(zip(one.parameters(), two.parameters(), strict=True))
    groups = [
        {"params": [named[p] for p in group["params"]], "weight_decay": group["weight_decay"]}
        for group in ours.param_groups
    ]
    return one, ours, two, torch.optim.SGD(groups, lr=0.1, momentum=MOMENTUM, nesterov=True, fused=True)


def give_gradients(*networks: nn.Module, seed: int, without: int | None = None) -> None:
    for each in networks:
        generator = torch.Generator().manual_seed(seed)
        for number, parameter in enumerate(each.parameters()):
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.grad = None if number == without else drawn


def equal(one: nn.Module, two: nn.Module) -> bool:
    pairs = zip(one.parameters(), two.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("without", [None, 0, 2])
def test_steps_are_those_of_torch(without: int | None) -> None:
    one, ours, two, theirs = twins()
    for step in range(4):
        give_gradients(one, two, seed=step, without=without)
        for optimizer in (ours, theirs):
            for group in optimizer.param_groups:
                group["lr"], group["momentum"] = 0.1 / (step + 1), MOMENTUM - 0.1 * step
            optimizer.step()
        assert equal(one, two)


def test_no_gradients_move_nothing() -> None:
    one, ours, _two, _theirs = twins()
    before = copy.deepcopy(one)
    ours.step()
    assert equal(one, before)


def test_a_momentum_taken_back_goes_on() -> None:
    one, ours, two, _theirs = twins()
    give_gradients(one, seed=0)
    ours.step()
    kept = copy.deepcopy((one.state_dict(), ours.state_dict()))
    give_gradients(one, seed=1)
    ours.step()
    two.load_state_dict(kept[0])
    again = build_optimizer(two, name="SGD", lr=0.1, momentum=MOMENTUM, weight_decay=DECAY)
    again.load_state_dict(kept[1])
    give_gradients(two, seed=1)
    again.step()
    assert equal(one, two)


def test_a_step_that_a_scaler_skips_leaves_momentum_at_rest() -> None:
    one, ours, _two, _theirs = twins()
    before = copy.deepcopy(one)
    give_gradients(one, seed=0)
    setattr(ours, "found_inf", torch.ones(()))  # noqa: B010 - as a gradient scaler does
    ours.step()
    assert equal(one, before)
    assert all(not state["momentum_buffer"].any() for state in ours.state.values())


@pytest.mark.parametrize("max_norm", [0.5, 1e6])
def test_clipping_is_that_of_torch(max_norm: float) -> None:
    one, _ours, two, _theirs = twins()
    give_gradients(one, two, seed=0)
    gradients: list[Tensor] = [p.grad for p in one.parameters() if p.grad is not None]
    norm = clip_gradients(gradients, max_norm)
    assert torch.equal(norm, torch.nn.utils.clip_grad_norm_(two.parameters(), max_norm))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None
        assert torch.equal(a.grad, b.grad)


def test_clipping_nothing() -> None:
    assert clip_gradients([], 1.0) == 0
