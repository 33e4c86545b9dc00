"""Modules that run in float32 in the middle of a network under autocast, because float16 cannot hold them.

A module becomes an island by a change of its class, as torch's own parametrizations do it: the state dict
and the children stay as they are, and copies of the network, folded ones too, are islands as well. It must
not know why a module became one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from yolocore.model.layers import Conv
from yolocore.train.trees import mapped, tensors_in

_REDUCED = (torch.float16, torch.bfloat16)
_classes: dict[type[nn.Module], type[nn.Module]] = {}


class Islands:
    """The names of a network's islands, in the order in which they became some."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = list(names)

    @property
    def names(self) -> list[str]:
        """Dotted names of modules; plain JSON, from which the islands can be made again."""
        return list(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def add(self, name: str, *networks: nn.Module) -> None:
        """Make the module of that name an island of these networks, and of all that `apply` gets later.

        The norm of a Conv takes its convolution with it: in a folded copy they are one.
        """
        if name not in self._names:
            self._names.append(name)
        for network in networks:
            _make(network, name)

    def apply(self, *networks: nn.Module) -> None:
        """Make the islands in networks of the same structure; what is one already stays one."""
        for network in networks:
            for name in self._names:
                _make(network, name)

    def load(self, names: Iterable[str], *networks: nn.Module) -> None:
        """Have these islands and no others, in the networks too."""
        for network in networks:
            sink(network)
        self._names = list(names)
        self.apply(*networks)


def is_island(module: nn.Module) -> bool:
    """Tell whether a module itself runs in float32 whatever autocast says."""
    return hasattr(type(module), "island_of")


def sink(network: nn.Module) -> None:
    """Turn all islands of a network back into ordinary modules."""
    for module in network.modules():
        if is_island(module):
            module.__class__ = type(module).island_of  # type: ignore[attr-defined]


def _make(network: nn.Module, name: str) -> None:
    for module in _members(network, name):
        if not is_island(module):
            module.__class__ = _island_of(type(module))


def _members(network: nn.Module, name: str) -> Iterator[nn.Module]:
    above, _, own = name.rpartition(".")
    parent = network.get_submodule(above)
    if isinstance(parent, Conv) and own == "bn":
        yield parent.conv
        if parent.bn is None:
            return
    yield parent.get_submodule(own)


def _island_of(kind: type[nn.Module]) -> type[nn.Module]:
    """Return the subclass whose forward runs without autocast on inputs of at least float32."""
    if kind in _classes:
        return _classes[kind]

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        device = tensors_in(args)[0].device
        with torch.autocast(device.type, enabled=False):
            return kind.forward(self, *mapped(args, _widened), **mapped(kwargs, _widened))

    _classes[kind] = type(f"Float32{kind.__name__}", (kind,), {"forward": forward, "island_of": kind})
    return _classes[kind]


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in _REDUCED else tensor
