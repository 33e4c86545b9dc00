"""`trainshed check job.yaml`: everything of a run short of queueing it, so that mistakes cost no training.

Dataset and model are brought to the service, as `run` does; what it would queue is told and not queued.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from api.cli.datasets import JsonFlag
from api.cli.estimate import time_lines, timed
from api.cli.gates import parse_no_worse
from api.cli.jobs import Settings
from api.cli.recipe import RecipeError, placed, read_recipe
from api.cli.run import NoWorseThan, Optional, RecipeFile, parsed_gates, with_options
from api.cli.session import EXIT_FAILED, EXIT_USAGE, connected, describe_problem, fail, out, print_json
from api.cli.sources import (
    Asking,
    SourceError,
    bring_architecture,
    bring_dataset,
    find_baselines,
    request_of,
)
from api.client import ApiError, Client
from api.client.patience import GIVE_UP_S, deadline_in

Timeout = Annotated[float | None, typer.Option(help="Longest time in seconds.", min=0)]
Probe = Annotated[bool, typer.Option("--probe/--no-probe", help="Have a worker time a few batches.")]
_WORST_SHOWN = 5
_MIB = 1 << 20


def check_command(
    context: typer.Context,
    recipe: RecipeFile,
    settings: Settings = None,
    no_worse: NoWorseThan = None,
    optional: Optional = False,
    probe: Probe = True,
    timeout: Timeout = None,
    as_json: JsonFlag = False,
) -> None:
    """Check a job.yaml as `run` would train it, without queueing anything.

    A worker times a few batches, if one is free within --timeout (120 s if absent).

    Exits: 0 it would be queued, 1 the dataset is invalid, 2 usage or refused, 5 timeout, 6 unreachable,
    7 not allowed.
    """
    deadline = deadline_in(timeout)
    gates = list(parsed_gates("--no-worse-than", no_worse, parse_no_worse))
    try:
        found = with_options(read_recipe(recipe), settings or [], None, [])
        with connected(context) as client:
            asking = Asking(client, GIVE_UP_S, deadline)
            find_baselines(asking, [*found.no_worse_than, *gates], optional=optional)
            dataset = bring_dataset(asking, found, quiet=as_json)
            problems = client.dataset_problems(dataset.id)
            if dataset.status == "invalid":
                fail("the dataset cannot be used", EXIT_FAILED, problems=problems[:_WORST_SHOWN])
            request = request_of(found, dataset, bring_architecture(asking, found))
            try:
                told = _checked(asking, client, request)
                told |= {"time": timed(client, told, request, deadline) if probe else None}
            except ApiError as error:
                error.errors = placed(found, error.errors)
                raise
    except (RecipeError, SourceError) as error:
        fail(str(error), EXIT_USAGE, problems=error.problems)
    if as_json:
        print_json(told | {"problems": problems})
        return
    for line in lines_of(told, problems):
        out.print(line, markup=False)


def _checked(asking: Asking, client: Client, request: dict[str, Any]) -> dict[str, Any]:
    return asking(lambda: client.check_job(request))


def lines_of(told: dict[str, Any], problems: list[dict[str, Any]]) -> list[str]:
    """Return what a person is told of a job that would be queued."""
    dataset, model, memory = told["dataset"], told["architecture"], told["memory"]
    pictures = "  ".join(f"{name} {count}" for name, count in dataset["splits"].items() if count)
    weak = f"  {dataset['num_warnings']} warnings" if dataset["num_warnings"] else ""
    lines = [
        f"dataset  {dataset['name']}  {dataset['status']}  {pictures}  {dataset['num_classes']} classes  "
        f"{dataset['num_boxes']} boxes{weak}",
        *(f"  {describe_problem(problem)}" for problem in problems[:_WORST_SHOWN]),
        f"model    {model['name']}  {model['num_parameters']} parameters  "
        f"{model['gflops']:g} GFLOPs a picture",
        *(f"  {describe_problem(warning)}" for warning in model["warnings"]),
        f"memory   {memory['maps_bytes'] / _MIB:.0f} MiB for the maps of a batch of {memory['batch']}, "
        f"{memory['weights_bytes'] / _MIB:.0f} MiB for weights, gradients and optimizer (fp32, at the least)",
        f"run      {told['epochs']} epochs{_batches(told)}  fingerprint {told['fingerprint'][:12]}",
    ]
    if told["identical"] is not None:
        twin = told["identical"]
        lines.append(f"  {twin['id']} is the same run ({twin['status']}); --reuse would take it")
    if not told["workers"]:
        lines.append(f"  no worker of {told['queue']} lives now: the job would wait")
    return lines if told["time"] is None else [*lines, *time_lines(told["time"])]


def _batches(told: dict[str, Any]) -> str:
    each = told["batches_per_epoch"]
    if each is None:
        return "  batches are known when the worker has found the largest"
    val = told["val_batches_per_epoch"] or 0
    return f" of {each} batches and {val} of validation, {told['epochs'] * each} batches to train in all"
