"""Loops over pixels that OpenCV has only slower operations for, compiled when first imported.

A bilinear warp that only moves and scales: rows and columns are independent then, each output row is one
blend of two source rows and one of neighbouring pixels, and whichever has fewer rows to go through comes
first. And products of bytes by fractions. Must not know matrices, borders or what the channels are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolocore.ops.jit import jit

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int32]

ONE = 2048  # weights are in units of 1 / ONE; two of them and a byte fit an int32
_SIGNATURE = "void(uint8[:,::1], int32[::1], int32[::1], int32[::1], int32[::1], int32[:,::1], uint8[:,::1])"


# Sums are kept in int32 by name: numba's own rules would widen them, and vectors would be half as long.
@jit()
def _mix(first: Any, second: Any, share: Any) -> Any:
    """Return ONE times the value at a share between two."""
    rest = np.int32(np.int32(ONE) - share)
    return np.int32(np.int32(np.int32(first) * rest) + np.int32(np.int32(second) * share))


@jit()
def _level(value: Any) -> Any:
    """Return a value that was mixed twice as a byte."""
    return np.uint8(np.int32(value + np.int32(1 << 21)) >> np.int32(22))


@jit(_SIGNATURE)
def blend_columns_first(
    source: Bytes, columns: Ints, shares: Ints, rows: Ints, row_shares: Ints, spare: Ints, out: Bytes
) -> None:
    """Write output rows of 3-byte pixels, with each source row blended once, in the order of the rows.

    Output pixel x lies `shares[x]` / ONE behind the pixel whose first byte is `columns[x]`, and row y
    `row_shares[y]` / ONE below row `rows[y]`, which must not fall; both neighbours lie in the source.
    `spare` has two rows as wide as the output.
    """
    held_even, held_odd = -1, -1
    for y in range(out.shape[0]):
        top = rows[y]
        for row in range(top, top + 2):
            held = held_odd if row & 1 else held_even
            if held == row:
                continue
            given, blended = source[row], spare[row & 1]
            for x in range(columns.shape[0]):
                at, share, to = np.uint32(columns[x]), shares[x], np.uint32(3 * x)
                for channel in range(3):
                    c = np.uint32(channel)
                    blended[to + c] = _mix(given[at + c], given[at + c + np.uint32(3)], share)
            if row & 1:
                held_odd = row
            else:
                held_even = row
        upper, lower, line, share = spare[top & 1], spare[(top + 1) & 1], out[y], row_shares[y]
        for x in range(line.shape[0]):
            line[x] = _level(_mix(upper[x], lower[x], share))


@jit(_SIGNATURE)
def blend_rows_first(
    source: Bytes, columns: Ints, shares: Ints, rows: Ints, row_shares: Ints, spare: Ints, out: Bytes
) -> None:
    """Do the same with two source rows blended for each output row; `spare` has one as wide as the source."""
    first, last = columns[0], columns[columns.shape[0] - 1] + 6
    blended = spare[0][first:last]
    for y in range(out.shape[0]):
        upper, lower, share = source[rows[y]][first:last], source[rows[y] + 1][first:last], row_shares[y]
        for x in range(blended.shape[0]):
            blended[x] = _mix(upper[x], lower[x], share)
        line = out[y]
        for x in range(columns.shape[0]):
            at, share, to = np.uint32(columns[x] - first), shares[x], np.uint32(3 * x)
            for channel in range(3):
                c = np.uint32(channel)
                line[to + c] = _level(_mix(blended[at + c], blended[at + c + np.uint32(3)], share))


def columns_first(num_source_rows: int, num_rows: int) -> bool:
    """Tell which of the two has fewer rows to blend pixel by pixel."""
    return num_source_rows < num_rows


@jit("void(uint8[:,::1], int32[::1], int32[::1], int32[::1], int32[::1])")
def multiply(rows: Bytes, factors: Ints, tops: Ints, turns: Ints, wraps: Ints) -> None:
    """Multiply bytes in place, and cut or wrap them; what by is given for each of a row.

    v becomes v * `factors` / 2^22, truncated, at most `tops`, and less `wraps` where it is `turns` or more.
    """
    for y in range(rows.shape[0]):
        row = rows[y]
        for x in range(row.shape[0]):
            value = np.int32(np.int32(np.int32(row[x]) * factors[x]) >> np.int32(22))
            value = min(value, tops[x])
            row[x] = np.uint8(np.int32(value - (wraps[x] if value >= turns[x] else np.int32(0))))
