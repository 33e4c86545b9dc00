"""Counts the operations a piece of work asks of a device, and those whose answer the host would wait for.

By looking at every call torch dispatches, which can be done on the CPU. Views cost no kernel and are not
counted. It must not know what the work is.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

VIEWS = {
    "alias", "as_strided", "detach", "expand", "permute", "select", "slice", "split", "split_with_sizes",
    "squeeze", "t", "transpose", "unbind", "unsqueeze", "view", "_unsafe_view", "_reshape_alias", "reshape",
    "lift_fresh", "_record_function_enter_new", "_record_function_exit",
}  # fmt: skip
# The host waits for these on CUDA: a value read, or a shape that depends on values.
WAITING = {
    "_local_scalar_dense", "item", "nonzero", "nonzero_numpy", "masked_select", "is_nonzero", "equal",
    "unique", "_unique2", "unique_dim", "unique_consecutive", "where.self", "argwhere", "repeat_interleave",
}  # fmt: skip


class Counting(TorchDispatchMode):
    """Counts the operations called inside, and keeps those that index by a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.masked: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Note a call and carry it out."""
        name = func.overloadpacket.__name__
        self.calls[name] += 1
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
            self.masked += [name] * bool(masks)
        return func(*args, **(kwargs or {}))

    @property
    def kernels(self) -> int:
        """How many calls would start work on the device."""
        return sum(count for name, count in self.calls.items() if name not in VIEWS)

    @property
    def waits(self) -> int:
        """How many calls the host would wait for."""
        return len(self.masked) + sum(count for name, count in self.calls.items() if name in WAITING)
