"""What a configuration asks of the model it is to train, told from the plan alone, before anything is built.

It must not know torch, the data or the machine.
"""

from __future__ import annotations

from collections.abc import Sequence

from yolocore.errors import ConfigError
from yolocore.spec.config import TrainConfig
from yolocore.spec.layers import Plan


def check_fit(config: TrainConfig, plan: Plan) -> None:
    """Raise ConfigError where the model lacks what the configuration names."""
    frozen_rows(config.freeze, len(plan.layers))
    if plan.anchors_are_placeholders and not config.autoanchor:
        raise placeholders_refused(len(plan.anchors_px[0]))


def placeholders_refused(anchors_per_level: int) -> ConfigError:
    """Return the error of anchors that are only counted and may not be fitted: no label would match any."""
    return ConfigError(
        "placeholder anchors without auto-anchor: the model gives a number of anchors but not their "
        "sizes; write the sizes, or switch auto-anchor on",
        code="PLACEHOLDER_ANCHORS",
        place="/autoanchor",
        value=f"{anchors_per_level} anchors a level",
    )


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


def _refused(message: str, freeze: int | Sequence[int]) -> ConfigError:
    value = freeze if isinstance(freeze, int) else list(freeze)
    return ConfigError(message, place="/freeze", value=str(value))
