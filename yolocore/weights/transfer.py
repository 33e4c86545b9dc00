"""Starts a network from weights of another: what fits by name and shape is copied, the rest is named.

Must not know files or training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from yolocore.errors import CheckpointError


class LeftOut(NamedTuple):
    """A tensor that was not copied; shapes are those of the file and of the network, None where absent."""

    name: str
    reason: str
    given: tuple[int, ...] | None
    wanted: tuple[int, ...] | None

    def __str__(self) -> str:
        shapes = f" {list(self.given)} for {list(self.wanted)}" if self.given and self.wanted else ""
        return f"{self.name} ({self.reason}{shapes})"


@dataclass(frozen=True)
class Transfer:
    """How many of the network's tensors were loaded, and what was left out or found nowhere."""

    loaded: int
    total: int
    left_out: list[LeftOut]

    def summary(self, most: int = 12) -> str:
        """Return one line for a person."""
        named = ", ".join(str(item) for item in self.left_out[:most])
        more = f" and {len(self.left_out) - most} more" if len(self.left_out) > most else ""
        rest = f"; left out: {named}{more}" if named else ""
        return f"{self.loaded} of {self.total} tensors start from the given weights{rest}"


def transfer(network: nn.Module, tensors: Mapping[str, Tensor], *, keep_anchors: bool) -> Transfer:
    """Copy the tensors whose key and shape the network has; anchors too, unless the network's are kept.

    Tensors with NaN or infinity are left out. Raises CheckpointError where nothing fits.
    """
    own = network.state_dict()
    left_out, fitting = [], []
    for key, target in own.items():
        reason = _reason(key, tensors.get(key), target, keep_anchors)
        if reason is None:
            fitting.append(key)
        else:
            given = tuple(tensors[key].shape) if key in tensors else None
            left_out.append(LeftOut(key, reason, given, tuple(target.shape)))
    left_out += [
        LeftOut(key, "unknown", tuple(tensors[key].shape), None) for key in tensors if key not in own
    ]
    if not any(own[key].is_floating_point() and "anchor" not in key for key in fitting):
        raise CheckpointError(
            "none of the given weights fits this network",
            code="WEIGHTS_DO_NOT_FIT",
            place=str(left_out[0]) if left_out else None,
            value=f"{len(tensors)} tensors",
        )
    with torch.no_grad():
        for key in fitting:
            own[key].copy_(tensors[key])
    return Transfer(len(fitting), len(own), left_out)


def _reason(key: str, given: Tensor | None, own: Tensor, keep_anchors: bool) -> str | None:
    if keep_anchors and "anchor" in key:
        return "anchors are the model's"
    if given is None:
        return "not in the file"
    if given.shape != own.shape:
        return "shape"
    return None if torch.isfinite(given).all() else "not finite"
