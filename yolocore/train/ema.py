"""The exponential moving average of a network's weights, the one that is validated and delivered.

It must not know the loop; `update` is called after each step.
"""

from __future__ import annotations

import copy
import math
from typing import Generic, TypeVar

import torch
from torch import nn

NetworkT = TypeVar("NetworkT", bound=nn.Module)

DECAY = 0.9999
RAMP_UPDATES = 2000


def decay_at(update: int) -> float:
    """Return the decay of update number `update`, counted from 1: it ramps up so that early weights fade."""
    return DECAY * (1 - math.exp(-update / RAMP_UPDATES))


class Ema(Generic[NetworkT]):
    """A copy of a network in evaluation mode whose floating-point entries, buffers too, follow it.

    v <- d v + (1 - d) w over lists of tensors made once, so `update` is one call for all of them; the
    network's tensors must not be replaced afterwards. Integer buffers are left alone.
    """

    def __init__(self, network: NetworkT) -> None:
        self.network: NetworkT = copy.deepcopy(network).eval().requires_grad_(False)
        self.updates = 0
        own = self.network.state_dict()
        followed = {key: value for key, value in network.state_dict().items() if value.is_floating_point()}
        self._averages = [own[key] for key in followed]
        self._current = list(followed.values())

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the network as it is now."""
        self.updates += 1
        torch._foreach_lerp_(self._averages, self._current, 1 - decay_at(self.updates))

    @torch.no_grad()
    def is_finite(self) -> bool:
        """Tell whether the whole average is finite; one reduction and one reading of the device."""
        largest = torch._foreach_norm(self._averages, math.inf)
        return bool(torch.isfinite(torch.stack(largest)).all())
