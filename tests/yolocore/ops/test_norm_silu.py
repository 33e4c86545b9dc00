"""Batch norm and SiLU as one operation: against the two in float64, whatever the shape and the threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from yolocore.ops.norm_silu import can_norm_silu, norm_silu

EPS, MOMENTUM = 1e-3, 0.03
# Wide and narrow, odd in all sides, one position only, and large enough to be cut for several threads.
SHAPES = [
    (2, 16, 8, 8),
    (3, 24, 5, 7),
    (1, 3, 1, 2),
    (2, 10, 9, 9),
    (4, 256, 2, 2),
    (1, 7, 3, 3),
    (4, 32, 48, 48),
]


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def made_norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, eps=EPS, momentum=MOMENTUM)
    nn.init.uniform_(norm.weight, 0.5, 2.0)
    nn.init.normal_(norm.bias)
    assert norm.running_mean is not None
    nn.init.normal_(norm.running_mean)
    return norm


def made_map(shape: tuple[int, ...], *, mean: float = 3.0) -> Tensor:
    return (torch.randn(shape) * 2 + mean).to(memory_format=torch.channels_last)


def joined(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    assert norm.running_mean is not None and norm.running_var is not None
    return norm_silu(x, norm.weight, norm.bias, norm.running_mean, norm.running_var, MOMENTUM, EPS)


def results(norm: nn.BatchNorm2d, x: Tensor, grad: Tensor, *, as_one: bool) -> list[Tensor]:
    """Return the map, the gradients of input, weight and bias, and the statistics that moved."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = joined(norm, x) if as_one else nn.functional.silu(norm(x))
    y.backward(grad)
    assert norm.running_mean is not None and norm.running_var is not None
    assert x.grad is not None and norm.weight.grad is not None and norm.bias.grad is not None
    return [y.detach(), x.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var]


def twin(norm: nn.BatchNorm2d, dtype: torch.dtype = torch.float64) -> nn.BatchNorm2d:
    other = nn.BatchNorm2d(norm.num_features, eps=EPS, momentum=MOMENTUM).to(dtype)
    other.load_state_dict(norm.state_dict())
    return other


def off_by(ours: Tensor, exact: Tensor) -> float:
    return float((ours.double() - exact).abs().max() / exact.abs().max())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_the_norm_and_the_activation(shape: tuple[int, ...], threads: int) -> None:
    torch.manual_seed(shape[1])
    norm, x, grad = made_norm(shape[1]), made_map(shape), torch.randn(shape)
    torchs = results(twin(norm, torch.float32), x, grad, as_one=False)
    exact = results(twin(norm), x.double(), grad.double(), as_one=False)
    ours = results(norm, x, grad, as_one=True)
    # Of two values a channel the gradient is a difference of nearly equal numbers, for torch as well.
    for a, b, c in zip(ours, torchs, exact, strict=True):
        assert off_by(a, c) < max(2e-6, 2 * off_by(b, c))
    assert ours[0].is_contiguous(memory_format=torch.channels_last)


def test_a_mean_far_from_zero_costs_no_digits_of_the_variance() -> None:
    torch.manual_seed(0)
    norm, x = made_norm(8), made_map((4, 8, 32, 32), mean=1000.0)
    exact = results(twin(norm), x.double(), torch.ones_like(x).double(), as_one=False)
    ours = results(norm, x, torch.ones_like(x), as_one=True)
    assert off_by(ours[5], exact[5]) < 1e-6


def test_a_sigmoid_that_saturates_does_so_without_a_stray_value() -> None:
    x = torch.tensor([-1e4, -200.0, -88.0, -87.0, -20.0, -1e-30, 0.0, 1e-30, 20.0, 87.0, 88.0, 1e4])
    x = x.view(1, 1, 3, 4).to(memory_format=torch.channels_last)
    norm = nn.BatchNorm2d(1, eps=EPS)
    norm.weight.data.fill_(float(x.double().var(unbiased=False).add(EPS).sqrt()))  # so that z is x - mean
    exact = results(twin(norm), x.double(), torch.ones_like(x).double(), as_one=False)
    ours = results(norm, x, torch.ones_like(x), as_one=True)
    assert off_by(ours[0], exact[0]) < 1e-6
    assert off_by(ours[1], exact[1]) < 1e-4
    assert all(bool(torch.isfinite(each).all()) for each in ours)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_not_hidden(value: float) -> None:
    torch.manual_seed(0)
    norm, x = made_norm(4), made_map((2, 4, 6, 6))
    x[0, 1, 2, 3] = value
    y, grad, *_ = results(norm, x, torch.ones_like(x), as_one=True)
    assert not torch.isfinite(y[:, 1]).any()
    assert not torch.isfinite(grad[:, 1]).any()
    assert torch.isfinite(y[:, [0, 2, 3]]).all() and torch.isfinite(grad[:, [0, 2, 3]]).all()


def test_a_gradient_that_is_not_finite_comes_through() -> None:
    norm, x = made_norm(2), made_map((2, 2, 4, 4))
    grad = torch.ones_like(x)
    grad[0, 0, 0, 0] = float("nan")
    _, grad_x, grad_weight, *_ = results(norm, x, grad, as_one=True)
    assert torch.isnan(grad_x[0, 0, 0, 0]) and torch.isnan(grad_weight[0]) and torch.isfinite(grad_weight[1])


def test_gradients_go_only_where_they_are_wanted(threads: int) -> None:
    norm, x = made_norm(16), made_map((2, 16, 8, 8)).requires_grad_()
    norm.weight.requires_grad_(False)
    norm.bias.requires_grad_(False)
    joined(norm, x).sum().backward()
    assert norm.weight.grad is None and norm.bias.grad is None and x.grad is not None


def test_the_same_comes_out_twice(threads: int) -> None:
    torch.manual_seed(0)
    first, x = made_norm(32), made_map((4, 32, 48, 48))
    second, grad = made_norm(32), torch.randn(x.shape)
    second.load_state_dict(first.state_dict())
    once, again = results(first, x, grad, as_one=True), results(second, x, grad, as_one=True)
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


def test_it_takes_what_it_is_made_for() -> None:
    x = torch.zeros(2, 8, 4, 4)
    assert can_norm_silu(x.to(memory_format=torch.channels_last))
    with torch.autocast("cpu", torch.bfloat16):
        assert not can_norm_silu(x.to(memory_format=torch.channels_last))
    assert not can_norm_silu(x)  # its channels are apart
    assert not can_norm_silu(x.to(torch.bfloat16, memory_format=torch.channels_last))
    assert not can_norm_silu(torch.zeros(1, 8, 1, 1))  # torch refuses one value a channel
    assert not can_norm_silu(x.flatten(1))
