"""The bilinear warp of a canvas of tiles by a matrix that only moves and scales, which most draws are.

What OpenCV's warp gives to one level, in about half the time. It must not know draws, labels or colours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from yolocore.data.geometry import Matrix, is_affine
from yolocore.data.pixels import ImageArray
from yolocore.data.scratch import Scratch

BORDER = 1
Ints = NDArray[np.int32]


def keeps_axes(matrix: Matrix) -> bool:
    """Tell whether the matrix only moves and enlarges or shrinks."""
    turned = matrix[0, 1] != 0 or matrix[1, 0] != 0
    return is_affine(matrix) and not turned and matrix[0, 0] > 0 and matrix[1, 1] > 0


def warp_axes(source: ImageArray, matrix: Matrix, out: ImageArray, scratch: Scratch) -> None:
    """Fill `out` (h, w, 3) with the source inside its border, warped by a matrix that `keeps_axes`.

    `source` (H + 2 BORDER, W + 2 BORDER, 3) is contiguous; the matrix takes pixels of what is inside its grey
    border to those of `out`. Beyond the border all is grey.
    """
    from yolocore.data import pixel_kernels as kernels  # loads a compiler, which others need not

    height, width = out.shape[0], out.shape[1]
    columns, column_shares = _taps(width, matrix[0, 0], matrix[0, 2], source.shape[1])
    rows, row_shares = _taps(height, matrix[1, 1], matrix[1, 2], source.shape[0])
    if kernels.columns_first(int(rows[-1] - rows[0]) + 2, height):
        blend, spare = kernels.blend_columns_first, scratch.ints("blended", (2, 3 * width))
    else:
        blend, spare = kernels.blend_rows_first, scratch.ints("blended", (1, 3 * source.shape[1]))
    flat = source.reshape(source.shape[0], -1)
    blend(flat, columns * np.int32(3), column_shares, rows, row_shares, spare, out.reshape(height, -1))


def _taps(count: int, scale: float, shift: float, side: int) -> tuple[Ints, Ints]:
    """Return for each output pixel of an axis the first of two source pixels, and the share of the second.

    Source pixel i of the axis, border included, lies at i - BORDER before it is scaled and shifted.
    """
    from yolocore.data.pixel_kernels import ONE

    places = (np.arange(count) - shift) / scale + BORDER
    places = np.minimum(np.maximum(places, 0), side - 1)
    first = np.minimum(places.astype(np.int32), np.int32(side - 2))
    return first, np.rint((places - first) * ONE).astype(np.int32)
