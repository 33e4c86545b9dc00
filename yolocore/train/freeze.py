"""Rows of a network that keep their start weights, and what it takes to hold them still.

A frozen row gets no gradient, so every optimizer passes it over, and its norms stay in evaluation mode, so
their running statistics stay as well. It must not know optimizers, the loop or where the numbers come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from yolocore.errors import ConfigError


def freeze(network: nn.Module, rows: Sequence[int]) -> list[nn.Module]:
    """Take the rows' parameters, those named `model.{row}.`, out of training; return the rows' norms.

    The norms go to `hold` after each `network.train()`. Raises ConfigError, with the network as it was, where
    no parameter is left to train.
    """
    prefixes = tuple(f"model.{row}." for row in rows)
    if not prefixes:
        return []
    frozen = [value for name, value in network.named_parameters() if name.startswith(prefixes)]
    kept = [value for name, value in network.named_parameters() if not name.startswith(prefixes)]
    if not any(value.requires_grad for value in kept):
        raise ConfigError(
            "the rows that are not frozen have no weights; nothing is left to train",
            place="/freeze",
            value=str(list(rows)),
        )
    for value in frozen:
        value.requires_grad_(False)
    return [
        module
        for name, module in network.named_modules()
        if isinstance(module, _NormBase) and f"{name}.".startswith(prefixes)
    ]


def hold(norms: Iterable[nn.Module]) -> None:
    """Put the frozen rows' norms into evaluation mode; to be called after each `network.train()`."""
    for norm in norms:
        norm.eval()
