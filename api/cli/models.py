"""`trainshed models`: check a model YAML without training it, or store it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.datasets import JsonFlag
from api.cli.session import connected, out, print_json
from api.client import ApiError, Architecture, Client

app = typer.Typer(no_args_is_help=True, help="Check and store model YAMLs.")

ModelFile = Annotated[Path, typer.Argument(help="A model YAML.", exists=True, dir_okay=False)]


def read_model(path: Path) -> str:
    """Read a model file; bytes that are no UTF-8 are left to the service to refuse by line."""
    return path.read_text(encoding="utf-8", errors="replace")


def push_text(client: Client, text: str, name: str) -> Architecture:
    """Store a model YAML; another text of that name is kept beside it under a name with its digest."""
    try:
        return client.push_architecture(text, name)
    except ApiError as error:
        if error.code != "NAME_TAKEN":
            raise
    return client.push_architecture(text, f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}")


def _figures(plan: dict[str, Any]) -> str:
    parts = [
        f"{plan['num_parameters']:,} parameters" if plan.get("num_parameters") is not None else "",
        f"{plan['gflops']:.2f} GFLOPs" if plan.get("gflops") is not None else "",
        f"strides {', '.join(f'{s:g}' for s in plan['strides'])}" if plan.get("strides") else "",
        f"{plan['num_classes']} classes" if plan.get("num_classes") is not None else "",
    ]
    return "; ".join(part for part in parts if part)


@app.command("check")
def check_command(
    context: typer.Context,
    model: ModelFile,
    classes: Annotated[
        int | None, typer.Option(help="Number of classes, instead of the file's own.", min=1)
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Check a model YAML and print its size. Exits 2 and names line and cause if it is wrong."""
    with connected(context) as client:
        plan = client.check_architecture(read_model(model), classes)
    if as_json:
        print_json(plan)
    else:
        out.print(f"{model}: {_figures(plan)}", markup=False)


@app.command("push")
def push_command(
    context: typer.Context,
    model: ModelFile,
    name: Annotated[str | None, typer.Option(help="Name; the file's own if absent.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Store a model YAML for jobs to use."""
    with connected(context) as client:
        architecture = client.push_architecture(read_model(model), name or model.stem)
    if as_json:
        print_json(architecture.as_json())
    else:
        out.print(f"{architecture.id}  {architecture.name}  {_figures(architecture.as_json())}", markup=False)
