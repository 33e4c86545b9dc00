"""Starts a network from weights of another: what fits by name and shape is copied, the rest is named.

Must not know files or training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from yolocore.errors import CheckpointError
from yolocore.spec.start import LeftOut, match_tensors

__all__ = ["LeftOut", "Transfer", "transfer"]


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
    fit = match_tensors(
        [(key, tuple(target.shape)) for key, target in own.items()],
        {key: tuple(tensor.shape) for key, tensor in tensors.items()},
        not_finite={key for key, tensor in tensors.items() if not torch.isfinite(tensor).all()},
        keep_anchors=keep_anchors,
    )
    if not fit.is_start:
        raise CheckpointError(
            "none of the given weights fits this network",
            code="WEIGHTS_DO_NOT_FIT",
            place=str(fit.left_out[0]) if fit.left_out else None,
            value=f"{len(tensors)} tensors",
        )
    with torch.no_grad():
        for key in fit.taken:
            own[key].copy_(tensors[key])
    return Transfer(len(fit.taken), fit.total, list(fit.left_out))
