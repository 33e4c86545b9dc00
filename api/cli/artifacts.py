"""`trainshed artifacts`: fetch what a job left, checked against its digest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.cli.datasets import JsonFlag
from api.cli.progress import transfer_bar
from api.cli.session import EXIT_USAGE, connected, fail, out, print_json

app = typer.Typer(no_args_is_help=True, help="List and fetch what jobs left.")

JobId = Annotated[str, typer.Argument(help="Id of the job.")]


@app.command("list")
def list_command(context: typer.Context, job: JobId, as_json: JsonFlag = False) -> None:
    """List the artifacts of a job."""
    with connected(context) as client:
        found = client.artifacts(job)
    if as_json:
        print_json([artifact.as_json() for artifact in found])
        return
    for artifact in found:
        out.print(f"{artifact.name}  {artifact.kind}  {artifact.size_bytes} bytes", markup=False)


@app.command("get")
def get_command(
    context: typer.Context,
    job: JobId,
    names: Annotated[list[str] | None, typer.Argument(help="Names; all if none is given.")] = None,
    target: Annotated[Path, typer.Option("--out", "-o", help="Folder to put them in.")] = Path(),
    as_json: JsonFlag = False,
) -> None:
    """Download artifacts of a job, each checked against its SHA-256."""
    with connected(context) as client:
        found = {artifact.name: artifact for artifact in client.artifacts(job)}
        unknown = [name for name in names or [] if name not in found]
        if unknown:
            fail(
                f"{job} has no artifact {unknown[0]!r}; it has: {', '.join(sorted(found)) or 'none'}",
                EXIT_USAGE,
            )
        written = []
        for name in names or sorted(found):
            with transfer_bar(name, quiet=as_json) as bar:
                # Only the last part of a name: a server does not choose folders here.
                path = client.download(job, found[name], target / Path(name).name, bar)
            written.append(path)
            if not as_json:
                out.print(str(path), markup=False)
    if as_json:
        print_json([str(path) for path in written])
