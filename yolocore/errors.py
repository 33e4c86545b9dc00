"""The error tree of the training core, so that a caller can tell the user's mistakes from ours.

    CoreError                 code, message, and where the cause lies (place, value)
    |-- ArchitectureError     a model YAML that cannot become a network; .problems
    |-- DatasetError          images or labels that cannot be trained on; .problems
    |-- ConfigError           settings of a run out of bounds or contradicting each other; .problems
    |-- CheckpointError       a checkpoint that is damaged, foreign or of another network
    |-- NonFiniteError        losses or gradients stayed NaN or infinite where nothing can be mended
    |-- OutOfMemoryError      the run does not fit into the device's memory
    |-- ExportError           a network that cannot be written in a form, or computes otherwise there
    `-- DiskFullError         a checkpoint or artifact could not be written

It knows nothing of HTTP or exit codes; `worker.trainer` and `api.errors` map these classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, with its place and the value found there.

    `line` and `column` count from 1; `row` is the number of a model-YAML row, from 0; `pointer` is a JSON
    pointer into a configuration; `file` is a path inside a dataset.
    """

    code: str
    message: str
    file: str | None = None
    line: int | None = None
    column: int | None = None
    row: int | None = None
    pointer: str | None = None
    value: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the filled fields only."""
        return {key: value for key, value in asdict(self).items() if value is not None}


class CoreError(Exception):
    """A named failure: `code` is stable and machine-readable, `message` is for a person."""

    code = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        place: str | None = None,
        value: str | None = None,
        problems: Sequence[Problem] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.place = place
        self.value = value
        self.problems = tuple(problems)


class ArchitectureError(CoreError):
    """A model YAML that cannot become a network."""

    code = "ARCHITECTURE_INVALID"


class DatasetError(CoreError):
    """Images or labels that cannot be trained on."""

    code = "DATASET_INVALID"


class ConfigError(CoreError):
    """Settings of a run that are out of bounds or contradict each other."""

    code = "CONFIG_INVALID"


class CheckpointError(CoreError):
    """A checkpoint that is damaged, foreign, or belongs to another network."""

    code = "CHECKPOINT_INVALID"


class NonFiniteError(CoreError):
    """Losses or gradients stayed NaN or infinite where nothing can be mended."""

    code = "NON_FINITE"


class OutOfMemoryError(CoreError):
    """The run does not fit into the memory of its device."""

    code = "OUT_OF_MEMORY"


class ExportError(CoreError):
    """A network that cannot be written in a form, or whose file computes something else than it does."""

    code = "EXPORT_FAILED"


class DiskFullError(CoreError):
    """A checkpoint or an artifact could not be written for lack of space."""

    code = "DISK_FULL"
