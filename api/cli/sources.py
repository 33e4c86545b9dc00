"""Finds on the service what a recipe names, and brings there what it does not have yet.

All is asked again while the service is away for a moment. It knows the client, and nothing of how a run ends.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from api.cli import datasets, models
from api.cli.gates import NoWorse
from api.cli.recipe import Recipe
from api.client import ApiError, Architecture, Client, Dataset, Job, UnreachableError
from api.client.http import file_sha256
from api.client.patience import Patience, time_left

_T = TypeVar("_T")
_HASH = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.zst")
_MODELS = (".yaml", ".yml")
_MOST_SEARCHED = 2000
_PAGE = 100
_NOT_FOUND, _TOO_MANY, _SERVER_ERRORS = 404, 429, 500


class SourceError(Exception):
    """Something a recipe or an option names that does not exist; `problems` say where it is named."""

    def __init__(self, message: str, problems: list[dict[str, Any]]) -> None:
        self.problems = problems
        super().__init__(message)


@dataclass(frozen=True)
class Asking:
    """A client, and how long it is asked again: for `give_up_s` seconds, never beyond `deadline`."""

    client: Client
    give_up_s: float
    deadline: float | None = None

    def __call__(self, ask: Callable[[], _T]) -> _T:
        """Return the answer; raises what stands in its way when that will not be better soon."""
        patience = Patience(self.give_up_s)
        while True:
            try:
                return ask()
            except ApiError as error:
                may_pass = error.status >= _SERVER_ERRORS or error.status == _TOO_MANY
                if patience.is_over or not may_pass or error.code == "STORAGE_FULL":
                    raise
            except UnreachableError:
                if patience.is_over:
                    raise
            if time_left(self.deadline) <= 0:
                raise TimeoutError("the service gave no answer in time")
            patience.pause(self.deadline)

    @property
    def left_s(self) -> float | None:
        """Return the seconds that are left; None without a deadline."""
        return None if self.deadline is None else max(0.0, time_left(self.deadline))


def bring_dataset(asking: Asking, recipe: Recipe, *, quiet: bool) -> Dataset:
    """Return the dataset a recipe names once it has been checked, whatever the check found.

    An archive or folder is sent only if the service does not have these bytes. Raises SourceError.
    """
    wanted = recipe.dataset
    source = recipe.beside(wanted)
    if source.exists():
        found = _push(asking, source, quiet=quiet)
    elif wanted.lower().endswith(_ARCHIVES) or "/" in wanted:
        raise SourceError("the dataset is not there", [recipe.problem("dataset", "no such file", wanted)])
    else:
        found = _known_dataset(asking, recipe)
    client = asking.client
    return client.wait_for_dataset(found.id, timeout_s=asking.left_s, give_up_s=asking.give_up_s)


def _push(asking: Asking, source: Path, *, quiet: bool) -> Dataset:
    name = source.resolve().name.split(".")[0] or "dataset"
    with datasets.as_archive(source) as archive:
        order = {"name": name, "sha256": file_sha256(archive).hexdigest()}
        try:
            answer = asking(lambda: asking.client.request("POST", "/v1/datasets", json=order))
            return Dataset.model_validate_json(answer.content)
        except ApiError as error:
            # Unknown bytes, or others of that name: both are the upload's to deal with.
            if error.code not in ("CONTENT_UNKNOWN", "NAME_TAKEN"):
                raise
        return asking(lambda: datasets.upload(asking.client, archive, name, quiet=quiet))


def _known_dataset(asking: Asking, recipe: Recipe) -> Dataset:
    wanted = recipe.dataset
    digest = match[1] if (match := _HASH.fullmatch(wanted)) else None

    def find() -> Dataset | None:
        if wanted.startswith("ds_"):
            return asking.client.dataset(wanted)
        return next((one for one in asking.client.datasets() if _is_it(one, wanted, digest)), None)

    try:
        found = asking(find)
    except ApiError as error:
        if error.status != _NOT_FOUND:
            raise
        found = None
    if found is None:
        message = "neither a file beside this one nor a dataset of the service (name, id, or SHA-256)"
        raise SourceError("the dataset is not there", [recipe.problem("dataset", message, wanted)])
    return found


def _is_it(dataset: Dataset, wanted: str, digest: str | None) -> bool:
    if digest is None:
        return dataset.name == wanted
    return digest in (dataset_field(dataset, "sha256"), dataset_field(dataset, "manifest_hash"))


def dataset_field(dataset: Dataset, name: str) -> str | None:
    """Return a text the service tells of a dataset beyond what the client knows by name."""
    value = (dataset.model_extra or {}).get(name)
    return value if isinstance(value, str) else None


def dataset_hash(dataset: Dataset) -> str:
    """Return what stands for a dataset's content: its manifest's digest, or its archive's, or its id."""
    manifest = dataset_field(dataset, "manifest_hash")
    return manifest or dataset_field(dataset, "sha256") or dataset.id


def bring_architecture(asking: Asking, recipe: Recipe) -> Architecture:
    """Return the architecture a recipe names, stored if it was not. Raises SourceError, ApiError."""
    wanted = recipe.architecture
    source = recipe.beside(wanted)
    client = asking.client
    if source.is_file():
        try:
            return asking(lambda: models.push_text(client, models.read_model(source), source.stem))
        except ApiError as error:
            error.errors = [{"file": str(source), **problem} for problem in error.errors]
            raise
    if wanted.endswith(_MODELS):
        raise SourceError("the model is not there", [recipe.problem("architecture", "no such file", wanted)])
    if wanted.startswith("arch_"):
        return _known_architecture(asking, recipe)
    public = asking(client.public_architectures)
    text = public.get(wanted) or public.get(f"hub/{wanted}")
    if text is None:
        message = f"neither a file beside this one nor a public model; there are: {', '.join(public)}"
        raise SourceError("the model is not there", [recipe.problem("architecture", message, wanted)])
    # A name has no folders: `hub/yolov5-p2` is stored as `yolov5-p2`.
    return asking(lambda: models.push_text(client, text, wanted.rpartition("/")[2]))


def _known_architecture(asking: Asking, recipe: Recipe) -> Architecture:
    wanted = recipe.architecture
    try:
        answer = asking(lambda: asking.client.request("GET", f"/v1/architectures/{wanted}"))
    except ApiError as error:
        if error.status != _NOT_FOUND:
            raise
        problem = recipe.problem("architecture", "the service has none of this id", wanted)
        raise SourceError("the model is not there", [problem]) from None
    return Architecture.model_validate_json(answer.content)


def architecture_hash(architecture: Architecture) -> str:
    """Return what stands for a model's text: its digest, or its id."""
    found = (architecture.model_extra or {}).get("hash")
    return found if isinstance(found, str) else architecture.id


def request_of(recipe: Recipe, dataset: Dataset, architecture: Architecture) -> dict[str, Any]:
    """Return the submission a recipe stands for, once what it names is on the service."""
    request: dict[str, Any] = {
        "dataset": dataset.id,
        "architecture": architecture.id,
        "config": recipe.config,
    }
    weights = {} if recipe.weights is None else {"weights": recipe.weights}
    return request | recipe.extras | weights


def find_baselines(asking: Asking, gates: Sequence[NoWorse], *, optional: bool) -> list[list[Job]]:
    """Return the jobs to compare with for each gate; raises SourceError for one that has none.

    `optional` lets a label pass that no job has yet.
    """
    found = [find_others(asking, gate) for gate in gates]
    for gate, jobs in zip(gates, found, strict=True):
        if not jobs and not optional:
            hint = "no job of this tag or name has succeeded (--allow-missing-baseline for the first)"
            raise SourceError(f"cannot judge {str(gate)!r}", [{"message": hint, "value": gate.other}])
    return found


def find_others(asking: Asking, gate: NoWorse) -> list[Job]:
    """Return the jobs to compare with: one of that id, or the newest two that succeeded of that tag or name.

    Two, because the job that is to be compared may be one of them. Raises SourceError for an id without a
    result; an empty list says that no job has the label.
    """
    if not gate.other.startswith("job_"):
        return asking(lambda: list(islice(_labelled(asking.client, gate.other), 2)))
    try:
        found = asking(lambda: asking.client.job(gate.other))
    except ApiError as error:
        if error.status != _NOT_FOUND:
            raise
        problem = {"message": "there is no such job", "value": gate.other}
        raise SourceError(f"cannot judge {str(gate)!r}", [problem]) from None
    if found.status != "succeeded":
        problem = {"message": f"the job is {found.status}, it has no result", "value": gate.other}
        raise SourceError(f"cannot judge {str(gate)!r}", [problem])
    return [found]


def _labelled(client: Client, label: str) -> Iterator[Job]:
    for job in islice(client.jobs(status="succeeded", limit=_PAGE), _MOST_SEARCHED):
        tags = (job.model_extra or {}).get("tags") or ()
        if label in tags or job.name == label:
            yield job
