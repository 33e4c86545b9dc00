"""The optimizer and its three groups of parameters, with the update fused into one kernel where torch can.

It must not know schedules or losses; rates are set from outside, once a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
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
        return FusedSgd(groups, lr=lr, momentum=momentum, nesterov=momentum > 0, fused=True)
    kind = torch.optim.Adam if name == "Adam" else torch.optim.AdamW
    return kind(groups, lr=lr, betas=(momentum, 0.999), fused=True)


class FusedSgd(torch.optim.SGD):
    """torch's fused SGD to the digit, on lists of parameters and momenta that are made once.

    For a small network on a CPU, gathering the lists anew costs as much as half of the arithmetic. Parameters
    all lie on one device in one type; neither they nor the momenta may be replaced but by `load_state_dict`.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], **options: Any) -> None:
        super().__init__(groups, **options)
        self._held = self._at_rest()

    def _at_rest(self) -> list[list[tuple[Tensor, Tensor]]]:
        """Return parameter and momentum by group; where there is no momentum yet, it is zero.

        Left alone, the fused kernel makes it of fresh memory and fills it at the first step; if a gradient
        scaler skips that step, whatever lay in the memory becomes the momentum. A first step from zero is the
        same step.
        """
        held = []
        for group in self.param_groups:
            for parameter in group["params"]:
                if self.state[parameter].get("momentum_buffer") is None:
                    self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            held.append([(one, self.state[one]["momentum_buffer"]) for one in group["params"]])
        return held

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take momenta and options back."""
        super().load_state_dict(state_dict)
        self._held = self._at_rest()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update each parameter that has a gradient; a gradient scaler's finding is heeded."""
        assert closure is None
        for group, held in zip(self.param_groups, self._held, strict=True):
            moving = [(one, grad, rest) for one, rest in held if (grad := one.grad) is not None]
            if moving:
                parameters, gradients, momenta = zip(*moving, strict=True)
                torch._fused_sgd_(
                    parameters,
                    gradients,
                    momenta if group["momentum"] else (),
                    weight_decay=group["weight_decay"],
                    momentum=group["momentum"],
                    lr=group["lr"],
                    dampening=group["dampening"],
                    nesterov=group["nesterov"],
                    maximize=group["maximize"],
                    is_first_step=False,
                    grad_scale=getattr(self, "grad_scale", None),
                    found_inf=getattr(self, "found_inf", None),
                )


@torch.no_grad()
def clip_gradients(gradients: list[Tensor], max_norm: float) -> Tensor:
    """Scale gradients so that their common L2 norm is at most `max_norm`; return the norm before, ().

    The operations of `torch.nn.utils.clip_grad_norm_` without its sorting by device and type: all are alike.
    """
    if not gradients:
        return torch.tensor(0.0)
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm


def apply_point(optimizer: torch.optim.Optimizer, point: Point) -> None:
    """Set the rates of the three groups, and the momentum of those that have one (Adam's betas stay)."""
    for group, lr in zip(optimizer.param_groups, point.lr, strict=True):
        group["lr"] = lr
        if "momentum" in group:
            group["momentum"] = point.momentum
