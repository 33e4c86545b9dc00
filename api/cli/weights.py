"""`trainshed weights`: upload a checkpoint to start jobs from, see what was read of it, remove it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.datasets import JsonFlag
from api.cli.progress import transfer_bar
from api.cli.session import EXIT_FAILED, EXIT_USAGE, connected, describe_problem, err, fail, out, print_json
from api.client import Client, Weights

app = typer.Typer(no_args_is_help=True, help="Upload, list, show and delete weights to start from.")

WeightsId = Annotated[str, typer.Argument(help="Id or name.")]
_SHOWN = 20


@app.command("push")
def push_command(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A YOLOv5 checkpoint.", exists=True, dir_okay=False)],
    name: Annotated[
        str | None, typer.Option(help="Name; the file's own without its suffix if absent.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait until it was read.")] = True,
    timeout: Annotated[float | None, typer.Option(help="Longest wait in seconds.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Upload weights and report what was read of them. Exits 1 if they cannot be used."""
    with (
        connected(context) as client,
        transfer_bar(f"uploading {file.name}", quiet=as_json) as bar,
    ):
        found = client.push_weights(file, name or file.stem, bar)
        if wait:
            found = client.wait_for_weights(found.id, timeout_s=timeout)
    _print(found, as_json=as_json)
    if found.status in ("invalid", "failed"):
        raise typer.Exit(EXIT_FAILED)


@app.command("list")
def list_command(context: typer.Context, as_json: JsonFlag = False) -> None:
    """List weights, newest first."""
    with connected(context) as client:
        found = list(client.all_weights())
    if as_json:
        print_json([weights.as_json() for weights in found])
        return
    for weights in found:
        out.print(summary(weights), markup=False)


@app.command("show")
def show_command(
    context: typer.Context,
    weights: WeightsId,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Tell what this network takes: id or public name.")
    ] = None,
    classes: Annotated[int | None, typer.Option(help="Number of classes of the network.", min=1)] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show weights, the report of their import, and what a network takes from them."""
    with connected(context) as client:
        found = client.weights(find(client, weights).id)
        fit = None if model is None else client.weights_fit(found.id, model, classes)
    if as_json:
        print_json(found.as_json() | ({} if fit is None else {"fit": fit}))
        return
    _print(found, as_json=False)
    if fit is not None:
        _print_fit(fit)


@app.command("delete")
def delete_command(context: typer.Context, weights: WeightsId) -> None:
    """Delete weights that no unfinished job needs; their name is free again."""
    with connected(context) as client:
        found = find(client, weights)
        client.delete_weights(found.id)
    out.print(f"{found.id}  {found.name}  deleted", markup=False)


def summary(weights: Weights) -> str:
    """Return a line with the id of weights, their state and counts."""
    counts = f": {weights.num_tensors} tensors, {weights.num_parameters:,} numbers"
    named = f", {weights.num_classes} classes" if weights.num_classes else ""
    return f"{weights.id}  {weights.name}  {weights.status}{counts + named if weights.num_tensors else ''}"


def _print(weights: Weights, *, as_json: bool) -> None:
    if as_json:
        print_json(weights.as_json())
        return
    out.print(summary(weights), markup=False)
    if weights.error is not None:
        err.print(f"  {weights.error.get('message')}", markup=False)
    for problem in (weights.report or {}).get("problems", ()):
        if problem["severity"] != "info":
            err.print(f"  {problem['severity']}: {describe_problem(problem)}", markup=False)


def _print_fit(fit: dict[str, Any]) -> None:
    verb = "takes" if fit["usable"] else "can not start from these; it would take"
    out.print(f"  {fit['architecture']} {verb} {len(fit['taken'])} of {fit['total']} tensors", markup=False)
    for item in fit["left_out"][:_SHOWN]:
        shapes = f" {item['given']} for {item['wanted']}" if item["given"] and item["wanted"] else ""
        out.print(f"    {item['name']}: {item['reason']}{shapes}", markup=False)
    if len(fit["left_out"]) > _SHOWN:
        out.print(f"    and {len(fit['left_out']) - _SHOWN} more", markup=False)


def find(client: Client, wanted: str) -> Weights:
    """Return the weights of an id or a name; exit with a usage error if there are none."""
    if wanted.startswith("wts_"):
        return client.weights(wanted)
    found = next((weights for weights in client.all_weights() if weights.name == wanted), None)
    if found is None:
        fail(f"no weights are called {wanted!r}", EXIT_USAGE)
    return found
