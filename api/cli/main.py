"""The `trainshed` command: options that name the service, and the commands below it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from api.cli import artifacts, check, datasets, fleet, gc, jobs, models, run, weights
from api.cli.session import EXIT_INTERRUPTED, Options, err

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train YOLOv5 detectors: start the service, upload, submit, watch, fetch.",
)
app.add_typer(datasets.app, name="datasets")
app.add_typer(models.app, name="models")
app.add_typer(weights.app, name="weights")
app.add_typer(jobs.app, name="jobs")
app.add_typer(artifacts.app, name="artifacts")
app.command("fleet")(fleet.fleet_command)
app.command()(gc.gc)
app.command("run")(run.run_command)
app.command("check")(check.check_command)


@app.callback()
def options(
    context: typer.Context,
    url: Annotated[str | None, typer.Option(help="Address of the service.", envvar="TRAINSHED_URL")] = None,
    token: Annotated[str | None, typer.Option(help="Access token.", envvar="TRAINSHED_TOKEN")] = None,
    data: Annotated[
        Path, typer.Option(help="Data folder of a service on this machine.", envvar="TRAINSHED_DATA_DIR")
    ] = Path("data"),
) -> None:
    """Take the options that stand before the command's name."""
    context.obj = Options(url=url, token=token, data=data)


@app.command()
def up(
    context: typer.Context,
    port: Annotated[int | None, typer.Option(help="Port of the service; 0 takes a free one.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Only pretend to train, in a data folder made for that.")
    ] = False,
) -> None:
    """Start the whole service on this machine and keep it up until Ctrl-C."""
    found = context.find_root().obj
    assert isinstance(found, Options)
    arguments = ["--data", str(found.data)]
    arguments += ["--port", str(port)] if port is not None else []
    arguments += ["--host", host] if host is not None else []
    arguments += ["--simulate"] if simulate else []
    # In place of this process: the stack's supervisor is then the one that hears the terminal.
    os.execv(sys.executable, [sys.executable, "-m", "api.local", *arguments])


def main() -> None:
    """Run the command line."""
    try:
        app()
    except KeyboardInterrupt:
        err.print("interrupted")
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
