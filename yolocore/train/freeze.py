"""Rows of a network that keep their start weights: which ones, and what it takes to hold them still.

A frozen row gets no gradient, so every optimizer passes it over, and its norms stay in evaluation mode, so
their running statistics stay as well. It must not know optimizers, the loop or where the numbers come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from yolocore.errors import ConfigError

PLACE = "/freeze"


def frozen_rows(freeze: int | Sequence[int], num_rows: int) -> tuple[int, ...]:
    """Return the numbers of the rows to freeze, ascending.

    A number K, alone or as the only one of a list, means rows 0..K-1; several numbers name rows. Raises
    ConfigError for rows that a model of `num_rows` has not, and where all of them would be frozen.
    """
    numbers = [freeze] if isinstance(freeze, int) else list(freeze)
    if len(numbers) == 1:
        count = numbers[0]
        if not 0 <= count <= num_rows:
            raise _refused(f"the model has {num_rows} rows; the first {count} cannot be frozen", freeze)
        rows = tuple(range(count))
    else:
        unknown = sorted({number for number in numbers if not 0 <= number < num_rows})
        if unknown:
            named = ", ".join(str(number) for number in unknown)
            raise _refused(f"the model's rows are 0 to {num_rows - 1}; there is no row {named}", freeze)
        rows = tuple(sorted(set(numbers)))
    if rows and len(rows) == num_rows:
        raise _refused("every row would be frozen; nothing is left to train", freeze)
    return rows


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
        raise _refused("the rows that are not frozen have no weights; nothing is left to train", list(rows))
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


def _refused(message: str, freeze: int | Sequence[int]) -> ConfigError:
    value = freeze if isinstance(freeze, int) else list(freeze)
    return ConfigError(message, place=PLACE, value=str(value))
