"""Tensors inside lists, tuples and dicts, as modules and states nest them. It must not know what for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a tensor, or lists, tuples and dicts with tensors in them, with each tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)(mapped(part, change) for part in value)
    if isinstance(value, dict):
        return {key: mapped(part, change) for key, part in value.items()}
    return value


def tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors in what a module takes or gives, in order."""
    found: list[Tensor] = []

    def take(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    mapped(value, take)
    return found
