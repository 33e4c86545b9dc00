"""The optimizer and its three groups of parameters, with the update fused into one kernel where torch can.

It must not know schedules or losses; rates are set from outside, once a batch.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from yolocore.train.schedule import Point

NORMS: tuple[type[nn.Module], ...] = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def parameter_groups(network: nn.Module) -> tuple[list[str], list[str], list[str]]:
    """Return the parameters' names as biases, decayed weights and norm weights, in the order of the modules.

    Everything that is neither called `bias` nor a norm layer's `weight` is decayed.
    """
    biases: list[str] = []
    decayed: list[str] = []
    norms: list[str] = []
    for prefix, module in network.named_modules():
        for name, _ in module.named_parameters(recurse=False):
            full = f"{prefix}.{name}" if prefix else name
            if name == "bias":
                biases.append(full)
            elif name == "weight" and isinstance(module, NORMS):
                norms.append(full)
            else:
                decayed.append(full)
    return biases, decayed, norms


def build_optimizer(
    network: nn.Module,
    *,
    name: Literal["SGD", "Adam", "AdamW"],
    lr: float,
    momentum: float,
    weight_decay: float,
) -> torch.optim.Optimizer:
    """Build SGD with Nesterov momentum, Adam or AdamW (betas `momentum` and 0.999) over the three groups.

    Group 0 holds biases, 1 decayed weights, 2 norm weights; only group 1 is decayed, by `weight_decay` as
    given (already scaled to the batch).
    """
    parameters = dict(network.named_parameters())
    decays = (0.0, weight_decay, 0.0)
    groups = [
        {"params": [parameters[key] for key in keys], "weight_decay": decay}
        for keys, decay in zip(parameter_groups(network), decays, strict=True)
    ]
    if name == "SGD":
        sgd = torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0, fused=True)
        _start_at_rest(sgd)
        return sgd
    kind = torch.optim.Adam if name == "Adam" else torch.optim.AdamW
    return kind(groups, lr=lr, betas=(momentum, 0.999), fused=True)


def _start_at_rest(sgd: torch.optim.SGD) -> None:
    """Give every parameter a momentum of zero.

    Left alone, the fused kernel makes it of fresh memory and fills it at the first step; if a gradient scaler
    skips that step, whatever lay in the memory becomes the momentum. A first step from zero is the same step.
    """
    for group in sgd.param_groups:
        for parameter in group["params"]:
            sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def apply_point(optimizer: torch.optim.Optimizer, point: Point) -> None:
    """Set the rates of the three groups, and the momentum of those that have one (Adam's betas stay)."""
    for group, lr in zip(optimizer.param_groups, point.lr, strict=True):
        group["lr"] = lr
        if "momentum" in group:
            group["momentum"] = point.momentum
