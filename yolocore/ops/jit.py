"""Compiles loops over arrays that neither numpy, OpenCV nor torch has an operation for, by numba.

The machine code is kept on disk beside the source or in the user's cache, where one may write, so that only
the first process of an installation compiles. Must not know what is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def jit(signature: str | None = None, *flags: str) -> Callable[[F], F]:
    """Compile a function for one signature, or for what it is called with; it runs without Python's lock.

    Products and sums may be fused; `flags` are further liberties of LLVM. Division by zero is numpy's.
    """
    njit: Any = numba.njit
    options = {"nogil": True, "fastmath": {"contract", *flags}, "error_model": "numpy"}
    given = (signature,) if signature else ()

    def compile_it(function: F) -> F:
        try:
            return cast(F, njit(*given, cache=True, **options)(function))
        except RuntimeError:  # no folder that may be written
            return cast(F, njit(*given, **options)(function))

    return compile_it
