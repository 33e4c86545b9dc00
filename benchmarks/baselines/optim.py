"""Optimizer, average and clipping the textbook way: one kernel an operation and a tensor."""

from __future__ import annotations

import copy

import torch
from torch import nn

from yolocore.train.ema import decay_at
from yolocore.train.optim import parameter_groups


class TextbookEma:
    """The average, entry by entry of the state dict, which is made anew for each update."""

    def __init__(self, network: nn.Module) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.updates = 0

    def update(self, network: nn.Module) -> None:
        """Move the average towards the network as it is now."""
        self.updates += 1
        decay = decay_at(self.updates)
        with torch.no_grad():
            current = network.state_dict()
            for key, value in self.network.state_dict().items():
                if value.dtype.is_floating_point:
                    value *= decay
                    value += (1 - decay) * current[key].detach()


def textbook_sgd(network: nn.Module, lr: float, momentum: float, weight_decay: float) -> torch.optim.SGD:
    """Return SGD with Nesterov momentum over the three groups, as torch makes it when nothing is asked."""
    parameters = dict(network.named_parameters())
    groups = [
        {"params": [parameters[key] for key in keys], "weight_decay": decay}
        for keys, decay in zip(parameter_groups(network), (0.0, weight_decay, 0.0), strict=True)
    ]
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=True)
