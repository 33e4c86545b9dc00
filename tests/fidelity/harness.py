"""Golden cases as values: where they lie, how they are read, the numbers they are fed with.

A case is one JSON file (and its arrays) of a folder named after its kind; the folder is whatever
TRAINSHED_GOLDEN names, so the tests are tables over what is found there. Knows nothing of the code under
test, except that `architecture_text` asks the zoo for the text of a public model file.
"""

from __future__ import annotations

import json
import math
import tomllib
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.shared import folder

if TYPE_CHECKING:
    import torch

HERE = Path(__file__).parent
ABSENT = "golden folder absent"


def golden_folder() -> Path | None:
    """Return the folder of golden cases, None if there is none."""
    return folder("TRAINSHED_GOLDEN", "golden")


def default_golden_folder() -> Path:
    """Return the folder that `expected.toml` speaks of."""
    return HERE.parents[2] / "shared" / "golden"


@dataclass(frozen=True)
class Case:
    """One golden case; files are read when a field is first used."""

    kind: str
    name: str
    path: Path

    def __str__(self) -> str:
        return self.name

    @cached_property
    def document(self) -> dict[str, Any]:
        """The whole JSON file (the checkpoint case has fields of its own)."""
        document: dict[str, Any] = json.loads(self.path.read_text())
        return document

    @property
    def meta(self) -> dict[str, Any]:
        """Settings of the case."""
        meta: dict[str, Any] = self.document.get("meta") or {}
        return meta

    @property
    def result(self) -> dict[str, Any]:
        """Expected scalars and lists."""
        result: dict[str, Any] = self.document.get("result") or {}
        return result

    @cached_property
    def inputs(self) -> dict[str, NDArray[Any]]:
        """Given arrays, names without `in__`."""
        return self._arrays("in__")

    @cached_property
    def outputs(self) -> dict[str, NDArray[Any]]:
        """Expected arrays, names without `out__`."""
        return self._arrays("out__")

    def _arrays(self, prefix: str) -> dict[str, NDArray[Any]]:
        path = self.path.with_suffix(".npz")
        if not path.exists():
            return {}
        with np.load(path, allow_pickle=False) as archive:
            return {name[len(prefix) :]: archive[name] for name in archive.files if name.startswith(prefix)}


def all_cases(root: Path | None = None) -> list[Case]:
    """List every case of a golden folder, sorted by kind and name."""
    root = root or golden_folder()
    if root is None:
        return []
    return [Case(path.parent.name, path.stem, path) for path in sorted(root.glob("*/*.json"))]


def cases(kind: str) -> list[Case]:
    """List the cases of one kind, for `pytest.mark.parametrize("case", cases(kind), ids=str)`.

    Without a golden folder a placeholder is returned; the suite's own fixture skips or fails it.
    """
    if golden_folder() is None:
        return [Case(kind, ABSENT, HERE / "absent.json")]
    return [case for case in all_cases() if case.kind == kind]


def has_code(kind: str) -> bool:
    """Tell whether a test file of its own answers for this kind."""
    return (HERE / f"test_{kind}.py").exists()


def deviations() -> dict[str, dict[str, str]]:
    """Return `deviations.toml`: "kind/name" -> part of the case -> why we differ there on purpose."""
    return tomllib.loads((HERE / "deviations.toml").read_text())


def deviation(case: Case, part: str) -> str | None:
    """Return why the named part of a case is not compared, None if it is; part `case` = the whole case.

    An entry "kind/*" speaks of every case of the kind.
    """
    table = deviations()
    for key in (f"{case.kind}/{case.name}", f"{case.kind}/*"):
        if part in table.get(key, {}):
            return table[key][part]
    return None


def skip_case(case: Case, reason: str) -> NoReturn:
    """Count the case as skipped, with a reason."""
    pytest.skip(f"{case.kind}/{case.name}: {reason}")


# ---- numbers


def uniform(name: str, n: int) -> NDArray[np.float64]:
    """Return the first n numbers of the stream U(name): float64 in [0, 1), exact in float32.

    splitmix64 (Steele, Lea, Flood 2014) seeded with the CRC-32 of the name in both halves.
    """
    crc = zlib.crc32(name.encode())
    with np.errstate(over="ignore"):
        seed = np.uint64((crc << 32) + crc)
        z = seed + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) / 2.0**24


def recipe_values(key: str, shape: tuple[int, ...], salt: str = "") -> NDArray[np.float32] | None:
    """Return the recipe's values of one state-dict entry, None where it is left as built."""
    last = key.rpartition(".")[2]
    if last == "num_batches_tracked":
        return np.zeros(shape, np.float32)
    if key.endswith("anchors"):
        return None
    u = uniform(salt + key, math.prod(shape))
    if last == "running_var":
        values = 0.5 + u
    elif last == "running_mean":
        values = 0.4 * u - 0.2
    elif len(shape) >= 2:
        values = (2 * u - 1) * math.sqrt(3) * 1.3 / math.sqrt(math.prod(shape[1:]))
    elif last.endswith("bias"):
        values = 0.4 * u - 0.2
    else:
        values = 0.5 + u
    return values.astype(np.float32).reshape(shape)


def fill_recipe(state_dict: Mapping[str, torch.Tensor], salt: str = "") -> Mapping[str, torch.Tensor]:
    """Fill the tensors of a state dict in place with the recipe's values and return it.

    A state dict aliases its module, so `fill_recipe(network.state_dict())` fills the network.
    """
    import torch

    with torch.no_grad():
        for key, tensor in state_dict.items():
            values = recipe_values(key, tuple(tensor.shape), salt)
            if values is not None:
                tensor.copy_(torch.from_numpy(values))
    return state_dict


# ---- networks


def architecture_text(meta: Mapping[str, Any]) -> str:
    """Return the model YAML a case speaks of: inline text, the folder's tiny.yaml, or a public file."""
    if "inline" in meta:
        return str(meta["inline"])
    root = golden_folder()
    name = str(meta["cfg"]).removesuffix(".yaml")
    if root is not None and name == "tiny":
        return (root / "tiny.yaml").read_text()
    from yolocore.spec.zoo import zoo_text

    return zoo_text(name)


# ---- comparison


def flatten(value: Any, name: str = "y") -> Iterator[tuple[str, Any]]:
    """Yield (name, tensor) of nested tuples and lists, named by position: y, y.0, y.1.2."""
    if isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from flatten(item, f"{name}.{index}")
    else:
        yield name, value


def relative_error(actual: Any, expected: Any) -> float:
    """Return the largest |a - b| / (1 + |b|); infinite where shapes differ or a number is missing."""
    a, b = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    if a.shape != b.shape:
        return math.inf
    if a.size == 0:
        return 0.0
    error = np.abs(a - b) / (1 + np.abs(b))
    return float(np.where(np.isnan(error), np.inf, error).max())


def assert_close(actual: Any, expected: Any, tolerance: float, what: str = "") -> None:
    """Assert that two arrays agree: |a - b| <= tolerance * (1 + |b|) everywhere."""
    error = relative_error(actual, expected)
    shapes = f"{np.shape(actual)} against {np.shape(expected)}"
    assert error <= tolerance, f"{what}: relative error {error:.3g} over {tolerance:g} ({shapes})"
