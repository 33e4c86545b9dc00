"""Batch norm in training and SiLU as one operation on the CPU, for float32 maps in channels-last layout.

The same mathematics as the two modules after each other, with sums in float64. Only the input of the norm is
kept for the backward, not what is between norm and activation: a third less memory. Results depend on the
number of threads by rounding, as those of torch do. Must not know modules.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
_WIDE = 128
_SPLIT_VALUES = 1 << 17


def can_norm_silu(x: Tensor) -> bool:
    """Return whether `norm_silu` takes a map: float32, CPU, channels-last, more than a value a channel.

    Not under autocast, where modules may be watched one by one and some alone are in float32.
    """
    return (
        x.dtype == torch.float32
        and x.device.type == "cpu"
        and x.dim() == 4
        and x.numel() > x.shape[1]
        and not torch.is_autocast_enabled("cpu")
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def norm_silu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
) -> Tensor:
    """Return silu(batch_norm(x)) with the statistics of this batch, (b, c, h, w) to (b, c, h, w).

    The running statistics (c,) move by `momentum`, the variance by the unbiased one. `x` must pass
    `can_norm_silu`; the other tensors are contiguous float32 (c,). It has no second derivative.
    """
    out: Tensor = _NormSilu.apply(x, weight, bias, running_mean, running_var, momentum, eps)
    return out


class _NormSilu(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        momentum: float,
        eps: float,
    ) -> Tensor:
        from yolocore.ops import norm_silu_kernels as kernels  # loads a compiler, which others need not

        rows = _Rows(x)
        means, squares, counts = rows.sums(), rows.sums(), rows.counts()
        rows.each(lambda part, i: kernels.moments(part(rows.x), means[i], squares[i]))
        inverse_std = np.empty(rows.channels)
        center, scale, shift = rows.repeated(), rows.repeated(), rows.repeated()
        kernels.settle_norm(
            means.reshape(-1, rows.channels),
            squares.reshape(-1, rows.channels),
            counts,
            weight.detach().numpy(),
            bias.detach().numpy(),
            running_mean.numpy(),
            running_var.numpy(),
            momentum,
            eps,
            inverse_std,
            center,
            scale,
            shift,
        )
        y = torch.empty_like(x)
        out, by, plus = rows.of(y), scale.reshape(-1), shift.reshape(-1)
        rows.each(lambda part, i: kernels.norm_silu(part(rows.x), by, plus, kernels.COEFFICIENTS, part(out)))
        ctx.save_for_backward(x)
        ctx.norm = inverse_std, center, scale, shift
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        from yolocore.ops import norm_silu_kernels as kernels

        (x,) = ctx.saved_tensors
        inverse_std, center, scale, shift = ctx.norm
        rows = _Rows(x)
        grad_x = torch.empty_like(x)
        out, given = rows.of(grad_x), rows.of(grad.contiguous(memory_format=torch.channels_last))
        at, by, plus = center.reshape(-1), scale.reshape(-1), shift.reshape(-1)
        sums, dots = rows.sums(), rows.sums()

        def gradient_of_norm(part: _Part, i: int) -> None:
            x, grad, to = part(rows.x), part(given), part(out)
            kernels.gradient_of_norm(x, grad, by, plus, at, kernels.COEFFICIENTS, to, sums[i], dots[i])

        rows.each(gradient_of_norm)
        grad_weight, grad_bias = torch.empty(rows.channels), torch.empty(rows.channels)
        slope, level = rows.repeated(), rows.repeated()
        kernels.settle_gradient(
            sums.reshape(-1, rows.channels),
            dots.reshape(-1, rows.channels),
            float(x.numel() // rows.channels),
            inverse_std,
            scale,
            grad_weight.numpy(),
            grad_bias.numpy(),
            slope,
            level,
        )
        tilt, lift = slope.reshape(-1), level.reshape(-1)
        rows.each(lambda part, i: kernels.gradient_of_input(part(rows.x), by, at, tilt, lift, part(out)))
        return grad_x, grad_weight, grad_bias, None, None, None, None


_Part = Callable[[Floats], Floats]


class _Rows:
    """A map as wide rows, cut into a part per thread where it is large."""

    def __init__(self, x: Tensor) -> None:
        self.channels = x.shape[1]
        num_positions = x.numel() // self.channels
        self._side_by_side = 1
        while num_positions % (2 * self._side_by_side) == 0 and self.channels * self._side_by_side < _WIDE:
            self._side_by_side *= 2
        self.x = self.of(x.detach())
        num_rows = len(self.x)
        num_parts = min(torch.get_num_threads() if x.numel() >= _SPLIT_VALUES else 1, num_rows)
        cuts = [num_rows * i // num_parts for i in range(num_parts + 1)]
        self._parts = [slice(start, stop) for start, stop in zip(cuts, cuts[1:], strict=False)]

    def of(self, x: Tensor) -> Floats:
        """Return the values of a map of this shape as rows, without copying."""
        flat: Floats = x.permute(0, 2, 3, 1).reshape(-1, self.channels * self._side_by_side).numpy()
        return flat

    def sums(self) -> Doubles:
        """Return room for one value per part and column."""
        return np.empty((len(self._parts), self.channels * self._side_by_side))

    def counts(self) -> Doubles:
        """Return how many values of a channel each of the columns of each part has."""
        return np.repeat([float(part.stop - part.start) for part in self._parts], self._side_by_side)

    def repeated(self) -> Floats:
        """Return room for one value per column, as (g, c)."""
        return np.empty((self._side_by_side, self.channels), np.float32)

    def each(self, work: Callable[[_Part, int], None]) -> None:
        """Do the same with each part, which `work` takes from arrays of rows; the others in other threads."""
        first, *others = self._parts
        if not others:
            work(lambda rows: rows, 0)
            return
        pool = _pool(os.getpid(), len(others))
        waiting = [pool.submit(work, _taking(part), i) for i, part in enumerate(others, start=1)]
        work(_taking(first), 0)
        for one in waiting:
            one.result()


def _taking(part: slice) -> _Part:
    return lambda rows: rows[part]


@cache
def _pool(pid: int, num_threads: int) -> ThreadPoolExecutor:
    """Return the threads of this process; a forked one needs its own."""
    return ThreadPoolExecutor(num_threads, thread_name_prefix="norm-silu")
