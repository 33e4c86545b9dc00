"""`trainshed jobs`: submit, list, show, watch, cancel; `submit --wait` is what a pipeline calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli import datasets, models
from api.cli.config import read_config
from api.cli.datasets import JsonFlag
from api.cli.session import (
    EXIT_CANCELLED,
    EXIT_FAILED,
    EXIT_TIMEOUT,
    EXIT_USAGE,
    connected,
    describe_problem,
    err,
    fail,
    out,
    print_json,
)
from api.cli.watching import Watcher
from api.client import Client, ClientError, Job, NotEndedError
from api.client.follow import follow
from api.client.patience import deadline_in, time_left

app = typer.Typer(no_args_is_help=True, help="Submit jobs and see how they do.")

JobId = Annotated[str, typer.Argument(help="Id of the job.")]
_WAITS = {
    "no_worker": "there is no worker for its queue; it waits until one starts",
    "waiting_for_worker": "it waits for a worker that has time",
    "waiting_for_dataset": "it waits until its dataset has been checked",
    "waiting_to_retry": "an attempt failed; it waits a while before the next",
}
_PAGE = 100
_LAST_LOOK_S = 1.0
_EXIT_OF = {"succeeded": 0, "failed": EXIT_FAILED, "cancelled": EXIT_CANCELLED}


@app.command("submit")
def submit_command(  # one parameter an option
    context: typer.Context,
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="Id, name, archive or folder.")],
    model: Annotated[str, typer.Option("--model", "-m", help="YAML file, public name (yolov5n), or id.")],
    name: Annotated[str | None, typer.Option(help="Name of the job.")] = None,
    config: Annotated[Path | None, typer.Option(help="JSON or YAML file with the configuration.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="One value, e.g. epochs=50 or hyp.lr0=0.005.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag; may be repeated.")] = None,
    key: Annotated[str | None, typer.Option("--idempotency-key", help="Same key, same job.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end and exit with its result.")] = False,
    timeout: Annotated[float | None, typer.Option(help="Longest wait in seconds.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Submit a job. With --wait: exit 0 succeeded, 1 failed, 4 cancelled, 5 timeout."""
    values = read_config(config, settings or [])
    deadline = deadline_in(timeout)
    with connected(context) as client:
        request: dict[str, Any] = {
            "dataset": _dataset_id(client, dataset, deadline, quiet=as_json),
            "architecture": _architecture_id(client, model),
            "config": values,
        }
        request |= {"name": name} if name else {}
        request |= {"tags": tag} if tag else {}
        job = client.submit(request, idempotency_key=key)
        if not as_json:
            out.print(job.id, markup=False)
        if wait:
            with _told_anyway(job, as_json=as_json):
                job = _watch(client, job, deadline, quiet=as_json)
    if as_json:
        print_json(job.as_json())
    if wait:
        _finish(job, quiet=as_json)


@contextmanager
def _told_anyway(job: Job, *, as_json: bool) -> Iterator[None]:
    """Let a script know the job it submitted, also where the wait for it ends before the job does."""
    try:
        yield
    except (TimeoutError, ClientError) as error:
        last = error.job if isinstance(error, NotEndedError) else None
        if as_json:
            print_json((last or job).as_json())
        raise


def _dataset_id(client: Client, wanted: str, deadline: float | None, *, quiet: bool) -> str:
    source = Path(wanted)
    if source.exists():
        left = None if deadline is None else max(0.0, time_left(deadline))
        name = source.resolve().name.split(".")[0]
        found = datasets.push(client, source, name, timeout_s=left, quiet=quiet)
    else:
        found = datasets.find(client, wanted)
    if found.status == "invalid":
        fail("the dataset cannot be used", EXIT_FAILED, problems=client.dataset_problems(found.id)[:20])
    return found.id


def _architecture_id(client: Client, wanted: str) -> str:
    if wanted.startswith("arch_"):
        return wanted
    source = Path(wanted)
    if source.is_file():
        return models.push_text(client, models.read_model(source), source.stem).id
    public = client.public_architectures()
    text = public.get(wanted) or public.get(f"hub/{wanted}")
    if text is None:
        known = ", ".join(public)
        fail(f"no model file {wanted!r}, and no public one of that name: {known}", EXIT_USAGE)
    # A name has no folders: `hub/yolov5-p2` is stored as `yolov5-p2`.
    return models.push_text(client, text, wanted.rpartition("/")[2]).id


def _watch(client: Client, job: Job, deadline: float | None, *, quiet: bool) -> Job:
    """Follow a job to its end; raise TimeoutError at the deadline."""
    if quiet:
        return client.wait_for_job(job.id, timeout_s=None if deadline is None else time_left(deadline))
    Watcher(err).watch(follow(client, job.id, deadline=deadline))
    return _ended(client, job.id, deadline)


def _ended(client: Client, job_id: str, deadline: float | None) -> Job:
    """Return a job whose events have ended; it has ended too, however little time is left."""
    timeout_s = None if deadline is None else max(_LAST_LOOK_S, time_left(deadline))
    return client.wait_for_job(job_id, timeout_s=timeout_s)


def _finish(job: Job, *, quiet: bool) -> None:
    """Say how a job ended and exit with its code."""
    if not quiet:
        _print_result(job)
    raise typer.Exit(_EXIT_OF.get(job.status, EXIT_TIMEOUT))


def _print_result(job: Job) -> None:
    best = job.best or {}
    figures = "  ".join(
        f"{title} {best[key]:.3f}"
        for key, title in (("map50", "mAP50"), ("map50_95", "mAP50-95"))
        if isinstance(best.get(key), int | float)
    )
    out.print(f"{job.id}  {job.status}  {figures}".rstrip(), markup=False)
    if job.error:
        err.print(f"  {job.error.get('code')}: {describe_problem(job.error)}", markup=False)
        if job.error.get("hint"):
            err.print(f"  hint: {job.error['hint']}", markup=False)


@app.command("list")
def list_command(
    context: typer.Context,
    status: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 20,
    every: Annotated[bool, typer.Option("--all", help="All there are, however many.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """List jobs, newest first."""
    most = None if every else limit
    # One more than is shown, to know whether there are more.
    wanted = None if most is None else most + 1
    with connected(context) as client:
        jobs = client.jobs(status=status, limit=min(wanted or _PAGE, _PAGE))
        found = list(islice(jobs, wanted))
    shown = found[:most]
    if as_json:
        print_json([job.as_json() for job in shown])
    else:
        for job in shown:
            out.print(_row(job), markup=False)
    if len(found) > len(shown):
        err.print(f"there are more than {limit}; --limit or --all shows them", markup=False)


def _row(job: Job) -> str:
    progress = job.progress or {}
    epoch, epochs = progress.get("epoch"), progress.get("epochs")
    at = f"epoch {int(epoch) + 1}/{epochs}" if isinstance(epoch, int) and epochs else ""
    return "  ".join(part for part in (job.id, job.status, job.name or "", at) if part)


@app.command("show")
def show_command(context: typer.Context, job: JobId, as_json: JsonFlag = False) -> None:
    """Show a job as it stands."""
    with connected(context) as client:
        found = client.job(job)
    if as_json:
        print_json(found.as_json())
        return
    out.print(_row(found), markup=False)
    if found.waiting_reason:
        out.print(f"  {_WAITS.get(found.waiting_reason, found.waiting_reason)}", markup=False)
    _print_result(found)


@app.command("watch")
def watch_command(
    context: typer.Context,
    job: JobId,
    timeout: Annotated[float | None, typer.Option(help="Longest wait in seconds.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show a job's losses live until it ends; the exit code is the job's. With --json: one event a line."""
    deadline = deadline_in(timeout)
    with connected(context) as client:
        if as_json:
            for event in follow(client, job, deadline=deadline):
                typer.echo(event.model_dump_json())
            found = _ended(client, job, deadline)
        else:
            found = _watch(client, client.job(job), deadline, quiet=False)
    _finish(found, quiet=as_json)


@app.command("cancel")
def cancel_command(context: typer.Context, job: JobId, as_json: JsonFlag = False) -> None:
    """Cancel a job; a running one stops within seconds."""
    with connected(context) as client:
        found = client.cancel(job)
    if as_json:
        print_json(found.as_json())
    else:
        out.print(_row(found), markup=False)
