"""Loops over the rows of a feature map that torch has no one operation for, compiled when first imported.

Batch norm and SiLU are bound by memory and by the exponential: torch takes a map through nine passes and two
exponentials to train on it, these take it through four passes and two cheaper ones. Sums are kept in float64
over blocks of rows that stay in the cache. Must not know torch: arrays come in, arrays are filled.

A map of c channels is given as rows of g * c values, g neighbouring positions side by side, so that rows are
wide enough for vector instructions; what is per channel is repeated g times.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolocore.ops.jit import jit

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_BLOCK_VALUES = 4096
# exp(-z) = 2^n p(f): -log2(e); 1.5 * 2^23, which rounds what is added to it; ln(2); p's coefficients, whose
# relative error is below 1e-7 for |f| <= ln(2) / 2; the largest |z|; 1.
COEFFICIENTS = np.array(
    [
        -1.4426950408889634,
        12582912.0,
        0.6931471805599453,
        0.9999997019767761,
        0.4999915063381195,
        0.1666763573884964,
        0.04189793020486832,
        0.008290315046906471,
        87.0,
        1.0,
    ],
    np.float32,
)


# Comparisons without a thought for NaN are single instructions; a NaN comes back with the factor z.
@jit(None, "nnan")
def _sigmoid(z: Any, k: Any) -> Any:
    """Return 1 / (1 + exp(-z)) with a relative error of some 1e-7."""
    z = z if z < k[8] else k[8]
    z = z if z > -k[8] else -k[8]
    shifted = z * k[0] + k[1]
    whole = shifted - k[1]
    f = -z - whole * k[2]
    p = k[7]
    p = p * f + k[6]
    p = p * f + k[5]
    p = p * f + k[4]
    p = p * f + k[3]
    p = p * f + k[9]
    bits = np.float32(p).view(np.int32) + np.int32(np.float32(shifted).view(np.int32) << np.int32(23))
    return k[9] / (k[9] + np.int32(bits).view(np.float32))


@jit("void(float32[:,::1], float64[::1], float64[::1])")
def moments(x: Floats, mean: Doubles, squares: Doubles) -> None:
    """Write the means of the columns of `x`, and the sums of squared distances from them.

    Block by block, merged after Chan, Golub and LeVeque (1979): nothing is lost where the mean is far from 0.
    """
    num_rows, width = x.shape
    block = max(16, _BLOCK_VALUES // width)
    center, square = np.empty(width, np.float32), np.empty(width, np.float32)
    for j in range(width):
        mean[j] = 0.0
        squares[j] = 0.0
    start = 0
    while start < num_rows:
        stop = min(start + block, num_rows)
        for j in range(width):
            center[j] = 0.0
            square[j] = 0.0
        for i in range(start, stop):
            for j in range(width):
                center[j] += x[i, j]
        share = np.float32(1.0) / np.float32(stop - start)
        for j in range(width):
            center[j] *= share
        for i in range(start, stop):
            for j in range(width):
                distance = x[i, j] - center[j]
                square[j] += distance * distance
        weight = (stop - start) / stop
        for j in range(width):
            apart = np.float64(center[j]) - mean[j]
            mean[j] += apart * weight
            squares[j] += np.float64(square[j]) + apart * apart * (start * weight)
        start = stop


@jit(
    "void(float64[:,::1], float64[:,::1], float64[::1], float32[::1], float32[::1], float32[::1],"
    "float32[::1], float64, float64, float64[::1], float32[:,::1], float32[:,::1], float32[:,::1])"
)
def settle_norm(
    means: Doubles,
    squares: Doubles,
    counts: Doubles,
    weight: Floats,
    bias: Floats,
    running_mean: Floats,
    running_var: Floats,
    momentum: float,
    eps: float,
    inverse_std: Doubles,
    center: Floats,
    scale: Floats,
    shift: Floats,
) -> None:
    """Merge the moments (parts, c) of `counts` values each; move the running ones and write what norms.

    `inverse_std` (c,); `center`, `scale` and `shift` (g, c), so that a norm is x * scale + shift. The running
    variance is the unbiased one.
    """
    num_parts, num_channels = means.shape
    for j in range(num_channels):
        count, mean, square = 0.0, 0.0, 0.0
        for i in range(num_parts):
            apart = means[i, j] - mean
            total = count + counts[i]
            mean += apart * (counts[i] / total)
            square += squares[i, j] + apart * apart * (count * counts[i] / total)
            count = total
        inverse = 1.0 / np.sqrt(square / count + eps)
        inverse_std[j] = inverse
        running_mean[j] += np.float32(momentum * (mean - running_mean[j]))
        running_var[j] += np.float32(momentum * (square / (count - 1.0) - running_var[j]))
        for i in range(scale.shape[0]):
            center[i, j] = mean
            scale[i, j] = weight[j] * inverse
            shift[i, j] = bias[j] - mean * (weight[j] * inverse)


@jit("void(float32[:,::1], float32[::1], float32[::1], float32[::1], float32[:,::1])")
def norm_silu(x: Floats, scale: Floats, shift: Floats, coefficients: Floats, y: Floats) -> None:
    """Write z * sigmoid(z) of z = x * scale + shift."""
    c = coefficients
    k = (c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8], c[9])
    num_rows, width = x.shape
    for i in range(num_rows):
        for j in range(width):
            z = x[i, j] * scale[j] + shift[j]
            y[i, j] = z * _sigmoid(z, k)


@jit(
    "void(float32[:,::1], float32[:,::1], float32[::1], float32[::1], float32[::1], float32[::1],"
    "float32[:,::1], float64[::1], float64[::1])"
)
def gradient_of_norm(
    x: Floats,
    grad: Floats,
    scale: Floats,
    shift: Floats,
    center: Floats,
    coefficients: Floats,
    out: Floats,
    sums: Doubles,
    dots: Doubles,
) -> None:
    """Write the gradient of z = x * scale + shift, given that of z * sigmoid(z); and two sums by column.

    d/dz = s (1 + z (1 - s)) with s = sigmoid(z). `sums` are of that gradient, `dots` of its products with
    x - center.
    """
    c = coefficients
    k = (c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8], c[9])
    num_rows, width = x.shape
    block = max(16, _BLOCK_VALUES // width)
    part, dot = np.empty(width, np.float32), np.empty(width, np.float32)
    for j in range(width):
        sums[j] = 0.0
        dots[j] = 0.0
    start = 0
    while start < num_rows:
        stop = min(start + block, num_rows)
        for j in range(width):
            part[j] = 0.0
            dot[j] = 0.0
        for i in range(start, stop):
            for j in range(width):
                value = x[i, j]
                z = value * scale[j] + shift[j]
                s = _sigmoid(z, k)
                g = grad[i, j] * (s * (k[9] + z * (k[9] - s)))
                out[i, j] = g
                part[j] += g
                dot[j] += g * (value - center[j])
        for j in range(width):
            sums[j] += part[j]
            dots[j] += dot[j]
        start = stop


@jit(
    "void(float64[:,::1], float64[:,::1], float64, float64[::1], float32[:,::1],"
    "float32[::1], float32[::1], float32[:,::1], float32[:,::1])"
)
def settle_gradient(
    sums: Doubles,
    dots: Doubles,
    count: float,
    inverse_std: Doubles,
    scale: Floats,
    weight_grad: Floats,
    bias_grad: Floats,
    slope: Floats,
    level: Floats,
) -> None:
    """Add up the sums (parts, c) over all `count` values of a channel: gradients (c,) of weight and bias.

    `slope` and `level` (g, c) give that of x: scale * gradient + slope * (x - center) + level (Ioffe and
    Szegedy 2015, section 3).
    """
    num_parts, num_channels = sums.shape
    for j in range(num_channels):
        total, dot = 0.0, 0.0
        for i in range(num_parts):
            total += sums[i, j]
            dot += dots[i, j]
        weight_grad[j] = dot * inverse_std[j]
        bias_grad[j] = total
        for i in range(scale.shape[0]):
            slope[i, j] = -scale[i, j] * (inverse_std[j] * inverse_std[j] * dot / count)
            level[i, j] = -scale[i, j] * (total / count)


@jit("void(float32[:,::1], float32[::1], float32[::1], float32[::1], float32[::1], float32[:,::1])")
def gradient_of_input(
    x: Floats, scale: Floats, center: Floats, slope: Floats, level: Floats, grad: Floats
) -> None:
    """Turn the gradient of the normed map into that of `x`, in place."""
    num_rows, width = x.shape
    for i in range(num_rows):
        for j in range(width):
            grad[i, j] = grad[i, j] * scale[j] + (x[i, j] - center[j]) * slope[j] + level[j]
