"""`trainshed run job.yaml`: from a file in a repository to a verdict, which is the exit code.

It brings dataset and model to the service, submits once for a content and a commit, follows, fetches, judges,
and writes reports however it ends.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.config import read_config
from api.cli.datasets import JsonFlag
from api.cli.gates import GateError, parse_no_worse, parse_requirement
from api.cli.jobs import Force, Reuse, Settings, on_duplicate
from api.cli.pipeline import Run, Wishes
from api.cli.recipe import Recipe, RecipeError, read_recipe
from api.cli.reports import REPORT, Outcome, clear_reports, write_reports
from api.cli.session import EXIT_INTERRUPTED, EXIT_USAGE, connected, err, fail, out, print_json
from api.cli.sources import SourceError
from api.client import ApiError, ClientError
from api.client.patience import GIVE_UP_S, deadline_in

RecipeFile = Annotated[Path, typer.Argument(help="The job.yaml.", dir_okay=False)]
Require = Annotated[
    list[str] | None, typer.Option(help="A figure to reach, such as map50>=0.70; may be repeated.")
]
NoWorseThan = Annotated[
    list[str] | None,
    typer.Option("--no-worse-than", metavar="JOB-or-label[:metric][-tolerance]", help="A job to match."),
]
Optional = Annotated[
    bool, typer.Option("--allow-missing-baseline", help="A label that no job has yet is no error.")
]
Commit = Annotated[str | None, typer.Option(help="Commit; that of the pipeline or of git if absent.")]
Timeout = Annotated[float | None, typer.Option(help="Longest time in seconds, until the end.", min=0)]
GiveUp = Annotated[float, typer.Option(help="Longest time without the service in seconds.", min=0)]
Target = Annotated[Path, typer.Option("--out", "-o", help="Folder of reports and artifacts.")]
Cancel = Annotated[
    bool, typer.Option("--cancel-on-interrupt", help="Cancel the job if this command is interrupted.")
]


def run_command(  # one parameter an option
    context: typer.Context,
    recipe: RecipeFile,
    require: Require = None,
    no_worse: NoWorseThan = None,
    optional: Optional = False,
    settings: Settings = None,
    name: Annotated[str | None, typer.Option(help="Name of the job.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag more; may be repeated.")] = None,
    commit: Commit = None,
    reuse: Reuse = False,
    force: Force = False,
    timeout: Timeout = None,
    give_up: GiveUp = GIVE_UP_S,
    target: Target = Path("trainshed-out"),
    cancel: Cancel = False,
    as_json: JsonFlag = False,
) -> None:
    """Train by a job.yaml and judge the result.

    Exits: 0 passed, 1 job failed, 2 usage, 3 requirement missed, 4 cancelled, 5 timeout, 6 unreachable,
    7 not allowed, 130 interrupted.
    """
    began, outcome = time.monotonic(), Outcome(recipe=str(recipe))
    deadline = deadline_in(timeout)
    try:
        # Of itself: the same commit's run is one, and another commit's is another.
        manner = on_duplicate(reuse=reuse, force=force, default="new")
        _clear(target)
        wishes = Wishes(
            require=tuple(parsed_gates("--require", require, parse_requirement)),
            no_worse_than=tuple(parsed_gates("--no-worse-than", no_worse, parse_no_worse)),
            is_baseline_optional=optional,
            commit=commit,
            on_duplicate=manner,
            is_forced=force,
            give_up_s=give_up,
            deadline=deadline,
            cancels_on_interrupt=cancel,
            quiet=as_json,
        )
        with _noting(outcome):
            found = with_options(read_recipe(recipe), settings or [], name, tag or [])
        with _terminated_as_interrupted(), connected(context) as client, _noting(outcome):
            Run(client, found, wishes, outcome, target).go()
    except typer.Exit as ended:
        outcome.exit_code = ended.exit_code
    except KeyboardInterrupt:
        outcome.exit_code = EXIT_INTERRUPTED
        outcome.message = outcome.message or "interrupted"
    outcome.seconds = time.monotonic() - began
    _tell(outcome, target, as_json=as_json)
    raise typer.Exit(outcome.exit_code)


def _clear(target: Path) -> None:
    try:
        clear_reports(target)
    except OSError as error:
        fail(f"--out {target}: {error.strerror or error}", EXIT_USAGE)


def parsed_gates(option: str, texts: Sequence[str] | None, parse: Any) -> Iterator[Any]:
    for text in texts or ():
        try:
            yield parse(text)
        except GateError as error:
            fail(f"{option} {text}: {error}", EXIT_USAGE)


def with_options(recipe: Recipe, settings: Sequence[str], name: str | None, tags: Sequence[str]) -> Recipe:
    """Return the recipe with what the command line says in its place, and its tags beside the recipe's."""
    extras = dict(recipe.extras) | ({"name": name} if name else {})
    both = dict.fromkeys([*extras.get("tags", ()), *tags])
    extras |= {"tags": list(both)} if both else {}
    config = _laid_over(recipe.config, read_config(None, settings))
    return replace(recipe, config=config, extras=extras)


def _laid_over(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(base)
    for key, value in more.items():
        below = found.get(key)
        both = isinstance(value, dict) and isinstance(below, dict)
        found[key] = _laid_over(below or {}, value) if both else value
    return found


@contextmanager
def _noting(outcome: Outcome) -> Iterator[None]:
    """Keep what ends a run for its reports; what a recipe has wrong is told and ends it as usage."""
    try:
        yield
    except (RecipeError, SourceError) as error:
        outcome.message, outcome.problems = str(error), error.problems
        fail(str(error), EXIT_USAGE, problems=error.problems)
    except ApiError as error:
        outcome.message, outcome.problems = str(error), error.errors
        raise
    except (ClientError, TimeoutError) as error:
        outcome.message = str(error)
        raise


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM, by which pipelines end what runs too long, do what Ctrl-C does."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _tell(outcome: Outcome, target: Path, *, as_json: bool) -> None:
    with suppress(OSError):
        write_reports(target, outcome)
    if as_json:
        print_json(outcome.as_json())
        return
    for verdict in outcome.verdicts:
        out.print(str(verdict), markup=False)
    job = f"  {outcome.job.id}" if outcome.job is not None else ""
    if outcome.job is not None and outcome.job.is_final and outcome.reason:
        err.print(f"trainshed: {outcome.reason}", markup=False)
    out.print(f"{outcome.result.replace('_', ' ')}{job}  {target / REPORT}", markup=False)
