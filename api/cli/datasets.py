"""`trainshed datasets`: upload a dataset, see what its check found, remove it."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

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
from api.client import ApiError, Client, Dataset
from api.client.http import Progress, file_sha256

app = typer.Typer(no_args_is_help=True, help="Upload, list, show and delete datasets.")

_PICTURES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp"})
_SUFFIXES = _PICTURES | {".txt", ".yaml", ".yml", ".json", ".xml"}
_JUNK = frozenset({"__MACOSX", "node_modules"})
_WORST_SHOWN = 20
# The earliest a zip can tell; a folder's own times and modes differ from checkout to checkout.
_ENTRY_DATE = (1980, 1, 1, 0, 0, 0)
_ENTRY_MODE = 0o100644 << 16
_UNIX = 3
_LONGEST_NAME = 120
JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

DatasetId = Annotated[str, typer.Argument(help="Id or name.")]


@contextmanager
def as_archive(source: Path) -> Iterator[Path]:
    """Yield an archive file; a folder is packed first: pictures and labels only, nothing hidden.

    The same files give the same bytes, whenever and wherever they were written.
    """
    if not source.is_dir():
        yield source
        return
    with tempfile.NamedTemporaryFile(suffix=".zip") as temporary:
        found = {
            path.relative_to(source).as_posix(): path
            for path in source.rglob("*")
            if path.suffix.lower() in _SUFFIXES and not _is_junk(path.relative_to(source)) and path.is_file()
        }
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for name in sorted(found):
                _add(archive, name, found[name])
        temporary.flush()
        yield Path(temporary.name)


def _is_junk(path: Path) -> bool:
    return any(part.startswith(".") or part in _JUNK for part in path.parts)


def _add(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    entry = zipfile.ZipInfo(name, _ENTRY_DATE)
    entry.create_system, entry.external_attr = _UNIX, _ENTRY_MODE
    entry.file_size = path.stat().st_size
    with path.open("rb") as content, archive.open(entry, "w") as target:
        shutil.copyfileobj(content, target)


def upload(
    client: Client, source: Path, name: str, *, quiet: bool, options: dict[str, Any] | None = None
) -> Dataset:
    """Upload; where the name belongs to other bytes, keep these beside it under a name with their digest."""
    with as_archive(source) as archive, transfer_bar(f"uploading {source.name}", quiet=quiet) as bar:
        return _put(client, archive, name, bar, options)


def _put(
    client: Client, archive: Path, name: str, bar: Progress | None, options: dict[str, Any] | None
) -> Dataset:
    try:
        return client.push_dataset(archive, name, bar, options=options)
    except ApiError as error:
        if error.code != "NAME_TAKEN":
            raise
    digest = file_sha256(archive)
    if options is not None:
        digest.update(json.dumps(options, sort_keys=True).encode())
    ending = f"-{digest.hexdigest()[:8]}"
    other = name[: _LONGEST_NAME - len(ending)] + ending
    err.print(f"{name!r} is the name of other content; this one is kept as {other!r}", markup=False)
    return client.push_dataset(archive, other, bar, options=options)


def push(
    client: Client,
    source: Path,
    name: str,
    *,
    timeout_s: float | None,
    quiet: bool,
    options: dict[str, Any] | None = None,
) -> Dataset:
    """Upload and wait for the check; used by `jobs submit` as well."""
    dataset = upload(client, source, name, quiet=quiet, options=options)
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
    inspect: Annotated[bool, typer.Option("--inspect", help="Only look: report, store no images.")] = False,
    renamed: Annotated[
        list[str] | None, typer.Option("--map", metavar="OLD=NEW", help="Rename or merge a class.")
    ] = None,
    dropped: Annotated[
        list[str] | None, typer.Option("--drop", metavar="NAME", help="Leave a class out.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Upload a dataset and report what its check found. Exits 1 if it cannot be used."""
    name = name or source.resolve().name.split(".")[0]
    options = import_options(renamed or [], dropped or [], inspect=inspect)
    with connected(context) as client:
        if wait:
            dataset = push(client, source, name, timeout_s=timeout, quiet=as_json, options=options)
        else:
            dataset = upload(client, source, name, quiet=as_json, options=options)
        problems = client.dataset_problems(dataset.id) if wait else []
    _print_report(dataset, problems, as_json=as_json, most=_WORST_SHOWN)
    if dataset.status == "invalid":
        raise typer.Exit(EXIT_FAILED)


def import_options(renamed: list[str], dropped: list[str], *, inspect: bool) -> dict[str, Any] | None:
    """Return what the service is told of an import; None where it takes everything as it is."""
    classes: dict[str, str | None] = {}
    for pair in renamed:
        old, equals, new = pair.partition("=")
        if not old or not equals or not new:
            fail(f"--map wants OLD=NEW, not {pair!r}", EXIT_USAGE)
        classes[old] = new
    classes |= dict.fromkeys(dropped)
    options: dict[str, Any] = {"inspect": True} if inspect else {}
    if classes:
        options["classes"] = classes
    return options or None


def _print_report(
    dataset: Dataset, problems: list[dict[str, Any]], *, as_json: bool, most: int | None = None
) -> None:
    if as_json:
        print_json(dataset.as_json() | {"report": problems})
        return
    out.print(summary(dataset), markup=False)
    told = [problem for problem in problems if problem.get("severity") != "info"]
    for problem in told[:most]:
        err.print(f"  {problem.get('severity')}: {describe_problem(problem)}", markup=False)
    if most is not None and len(told) > most:
        err.print(f"  and {len(told) - most} more: trainshed datasets show {dataset.id}", markup=False)


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


@app.command("show")
def show_command(context: typer.Context, dataset: DatasetId, as_json: JsonFlag = False) -> None:
    """Show a dataset and the report of its check."""
    with connected(context) as client:
        found = find(client, dataset)
        problems = client.dataset_problems(found.id)
    _print_report(found, problems, as_json=as_json)


@app.command("confirm")
def confirm_command(
    context: typer.Context,
    dataset: DatasetId,
    timeout: Annotated[float | None, typer.Option(help="Longest wait in seconds.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Import a dataset that was only looked at, as it was looked at. Exits 1 if it cannot be used."""
    with connected(context) as client:
        confirmed = client.confirm_dataset(find(client, dataset).id)
        _print_verdict(client, confirmed, timeout_s=timeout, as_json=as_json)


@app.command("retry")
def retry_command(
    context: typer.Context,
    dataset: DatasetId,
    timeout: Annotated[float | None, typer.Option(help="Longest wait in seconds.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Look again into a dataset at which the service itself had failed. Exits 1 if it cannot be used."""
    with connected(context) as client:
        again = client.retry_dataset(find(client, dataset).id)
        _print_verdict(client, again, timeout_s=timeout, as_json=as_json)


def _print_verdict(client: Client, dataset: Dataset, *, timeout_s: float | None, as_json: bool) -> None:
    """Wait until a dataset is decided and print its report; exits 1 for one that cannot be used."""
    found = client.wait_for_dataset(dataset.id, timeout_s=timeout_s)
    problems = client.dataset_problems(found.id)
    _print_report(found, problems, as_json=as_json, most=_WORST_SHOWN)
    if found.status == "invalid":
        raise typer.Exit(EXIT_FAILED)


@app.command("delete")
def delete_command(context: typer.Context, dataset: DatasetId) -> None:
    """Delete a dataset that no unfinished job needs; its name is free again."""
    with connected(context) as client:
        found = find(client, dataset)
        client.delete_dataset(found.id)
    out.print(f"{found.id}  {found.name}  deleted", markup=False)


def find(client: Client, wanted: str) -> Dataset:
    """Return the dataset of an id, or the newest of a name; exit with a usage error if there is none."""
    if wanted.startswith("ds_"):
        return client.dataset(wanted)
    found = next((dataset for dataset in client.datasets() if dataset.name == wanted), None)
    if found is None:
        fail(f"no dataset is called {wanted!r}", EXIT_USAGE)
    return found
