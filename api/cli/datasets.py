"""`trainshed datasets`: upload a dataset and see what its check found."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from api.cli.progress import transfer_bar
from api.cli.session import (
    EXIT_FAILED,
    EXIT_USAGE,
    connected,
    describe_problem,
    err,
    fail,
    out,
    print_json,
)
from api.client import Client, Dataset

app = typer.Typer(no_args_is_help=True, help="Upload and list datasets.")

_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp", ".txt", ".yaml", ".yml"}
)
JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@contextmanager
def as_archive(source: Path) -> Iterator[Path]:
    """Yield an archive file; a folder is packed first (pictures, labels and YAML only)."""
    if not source.is_dir():
        yield source
        return
    with tempfile.NamedTemporaryFile(suffix=".zip") as temporary:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for path in sorted(source.rglob("*")):
                if path.is_file() and path.suffix.lower() in _SUFFIXES:
                    archive.write(path, path.relative_to(source).as_posix())
        temporary.flush()
        yield Path(temporary.name)


def push(client: Client, source: Path, name: str, *, timeout_s: float | None, quiet: bool) -> Dataset:
    """Upload and wait for the check; used by `jobs submit` as well."""
    with as_archive(source) as archive, transfer_bar(f"uploading {source.name}", quiet=quiet) as bar:
        dataset = client.push_dataset(archive, name, bar)
    if not quiet and err.is_terminal:
        with err.status("checking the dataset"):
            return client.wait_for_dataset(dataset.id, timeout_s=timeout_s)
    return client.wait_for_dataset(dataset.id, timeout_s=timeout_s)


def summary(dataset: Dataset) -> str:
    """Return a line with a dataset's id, state and counts."""
    splits = ", ".join(f"{count} {name}" for name, count in (dataset.splits or {}).items() if count)
    found = f": {splits}; {dataset.num_boxes} boxes, {dataset.num_classes} classes" if splits else ""
    return f"{dataset.id}  {dataset.name}  {dataset.status}{found}"


@app.command("push")
def push_command(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(help="A zip, tar, tar.gz or tar.zst, or a folder.", exists=True)],
    name: Annotated[
        str | None, typer.Option(help="Name; the file's own without its suffix if absent.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait for the check of the dataset.")] = True,
    timeout: Annotated[float | None, typer.Option(help="Longest wait in seconds.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Upload a dataset and report what its check found. Exits 1 if it cannot be used."""
    name = name or source.resolve().name.split(".")[0]
    with connected(context) as client:
        if wait:
            dataset = push(client, source, name, timeout_s=timeout, quiet=as_json)
        else:
            with (
                as_archive(source) as archive,
                transfer_bar(f"uploading {source.name}", quiet=as_json) as bar,
            ):
                dataset = client.push_dataset(archive, name, bar)
        problems = client.dataset_problems(dataset.id) if wait else []
    if as_json:
        print_json(dataset.as_json() | {"report": problems})
    else:
        out.print(summary(dataset), markup=False)
        for problem in problems:
            if problem.get("severity") != "info":
                err.print(f"  {problem.get('severity')}: {describe_problem(problem)}", markup=False)
    if dataset.status == "invalid":
        raise typer.Exit(EXIT_FAILED)


@app.command("list")
def list_command(context: typer.Context, as_json: JsonFlag = False) -> None:
    """List datasets, newest first."""
    with connected(context) as client:
        found = list(client.datasets())
    if as_json:
        print_json([dataset.as_json() for dataset in found])
        return
    for dataset in found:
        out.print(summary(dataset), markup=False)


def find(client: Client, wanted: str) -> Dataset:
    """Return the dataset of an id, or the newest of a name."""
    if wanted.startswith("ds_"):
        return client.dataset(wanted)
    found = next((dataset for dataset in client.datasets() if dataset.name == wanted), None)
    if found is None:
        fail(f"no dataset is called {wanted!r}, and there is no such file", EXIT_USAGE)
    return found
