"""`trainshed jobs`: submit, show, watch and command jobs; `submit --wait` is what a pipeline calls."""

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
from api.cli.jobtext import print_attempts, print_result, print_state, row
from api.cli.session import (
    EXIT_CANCELLED,
    EXIT_FAILED,
    EXIT_TIMEOUT,
    EXIT_USAGE,
    connected,
    err,
    fail,
    out,
    print_json,
)
from api.cli.watching import Watcher
from api.client import ApiError, Client, ClientError, Job, NotEndedError
from api.client.follow import follow
from api.client.patience import deadline_in, time_left

app = typer.Typer(no_args_is_help=True, help="Submit jobs and see how they do.")

JobId = Annotated[str, typer.Argument(help="Id of the job.")]
Priority = Annotated[int | None, typer.Option(help="Higher ones of a queue go first; 0 if absent.")]
MaxRuntime = Annotated[int | None, typer.Option(help="Seconds of running, over all attempts.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="One value, e.g. epochs=50 or hyp.lr0=0.005.")
]
Weights = Annotated[str | None, typer.Option("--weights", "-w", help="Id or name of weights to start from.")]
Key = Annotated[str | None, typer.Option("--idempotency-key", help="Same key, same job.")]
Reuse = Annotated[bool, typer.Option("--reuse", help="Take an identical run that exists.")]
Force = Annotated[bool, typer.Option("--force", help="Train although an identical run exists.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the end and exit with its result.")]
Timeout = Annotated[float | None, typer.Option(help="Longest wait in seconds.")]
RUN_EXISTS = "RUN_EXISTS"
_PAGE = 100
_LAST_LOOK_S = 1.0
_EXIT_OF = {"succeeded": 0, "failed": EXIT_FAILED, "cancelled": EXIT_CANCELLED}


@app.command("submit")
def submit_command(  # one parameter an option
    context: typer.Context,
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="Id, name, archive or folder.")],
    model: Annotated[str, typer.Option("--model", "-m", help="YAML file, public name (yolov5n), or id.")],
    weights: Weights = None,
    name: Annotated[str | None, typer.Option(help="Name of the job.")] = None,
    config: Annotated[Path | None, typer.Option(help="JSON or YAML file with the configuration.")] = None,
    settings: Settings = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag; may be repeated.")] = None,
    priority: Priority = None,
    max_runtime: MaxRuntime = None,
    key: Key = None,
    reuse: Reuse = False,
    force: Force = False,
    wait: Wait = False,
    timeout: Timeout = None,
    as_json: JsonFlag = False,
) -> None:
    """Submit a job. With --wait: exit 0 succeeded, 1 failed, 4 cancelled, 5 timeout.

    An identical run (fingerprint) that has succeeded or may yet is refused (exit 2), unless --reuse, --force
    or a key of your own says what is wanted.
    """
    manner = on_duplicate(reuse=reuse, force=force, default="new" if key else "refuse")
    values = read_config(config, settings or [])
    deadline = deadline_in(timeout)
    with connected(context) as client:
        request: dict[str, Any] = {
            "dataset": _dataset_id(client, dataset, deadline, quiet=as_json),
            "architecture": _architecture_id(client, model),
            "config": values,
        }
        request |= {} if manner == "new" else {"on_duplicate": manner}
        request |= _given(weights=weights, name=name, tags=tag, priority=priority, max_runtime_s=max_runtime)
        job = _new_or_reused(client, request, key)
        job = _submitted(client, job, deadline, wait=wait, quiet=as_json)
    _tell_submitted(job, wait=wait, as_json=as_json)


def on_duplicate(*, reuse: bool, force: bool, default: str) -> str:
    """Return what two options say of an identical run; ends the command if they contradict each other."""
    if reuse and force:
        fail("--reuse and --force contradict each other", EXIT_USAGE)
    return "reuse" if reuse else "new" if force else default


def _new_or_reused(client: Client, request: dict[str, Any], key: str | None) -> Job:
    try:
        made = client.submission(request, idempotency_key=key)
    except ApiError as error:
        if error.code == RUN_EXISTS:
            fail(f"{error.detail}; --reuse takes it, --force trains again", EXIT_USAGE)
        raise
    if made.is_reused:
        err.print(f"{made.job.id} exists already ({made.job.status}): no new run", markup=False)
    return made.job


def _given(**values: Any) -> dict[str, Any]:
    """Return what was given; the service has its own defaults for the rest."""
    return {key: value for key, value in values.items() if value is not None and value != []}


def _submitted(client: Client, job: Job, deadline: float | None, *, wait: bool, quiet: bool) -> Job:
    """Print the id of a new job, and wait for its end if that was asked for."""
    if not quiet:
        out.print(job.id, markup=False)
    if not wait:
        return job
    with _told_anyway(job, as_json=quiet):
        return _watch(client, job, deadline, quiet=quiet)


def _tell_submitted(job: Job, *, wait: bool, as_json: bool) -> None:
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
        print_result(job)
    raise typer.Exit(_EXIT_OF.get(job.status, EXIT_TIMEOUT))


@app.command("list")
def list_command(
    context: typer.Context,
    status: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    fingerprint: Annotated[str | None, typer.Option(help="Only the same runs as this.")] = None,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 20,
    every: Annotated[bool, typer.Option("--all", help="All there are, however many.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """List jobs, newest first."""
    most = None if every else limit
    # One more than is shown, to know whether there are more.
    wanted = None if most is None else most + 1
    with connected(context) as client:
        jobs = client.jobs(status=status, fingerprint=fingerprint, limit=min(wanted or _PAGE, _PAGE))
        found = list(islice(jobs, wanted))
    shown = found[:most]
    if as_json:
        print_json([job.as_json() for job in shown])
    else:
        for job in shown:
            out.print(row(job), markup=False)
    if len(found) > len(shown):
        err.print(f"there are more than {limit}; --limit or --all shows them", markup=False)


@app.command("show")
def show_command(context: typer.Context, job: JobId, as_json: JsonFlag = False) -> None:
    """Show a job as it stands: what it waits for, its attempts, its best, its error."""
    with connected(context) as client:
        found = client.job(job)
        attempts = client.attempts(job)
    if as_json:
        print_json(found.as_json() | {"attempts": [attempt.as_json() for attempt in attempts]})
        return
    print_state(found)
    print_attempts(attempts)
    if found.is_final or found.best or found.error:
        print_result(found)


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
    """Cancel a job; a running one ends within seconds."""
    with connected(context) as client:
        _tell(client.cancel(job), as_json=as_json)


@app.command("stop")
def stop_command(context: typer.Context, job: JobId, as_json: JsonFlag = False) -> None:
    """End a job and keep its best so far; one that has none yet is cancelled."""
    with connected(context) as client:
        _tell(client.stop(job), as_json=as_json)


@app.command("pause")
def pause_command(context: typer.Context, job: JobId, as_json: JsonFlag = False) -> None:
    """Hold a job; a running one writes a checkpoint and gives its place back."""
    with connected(context) as client:
        _tell(client.pause(job), as_json=as_json)


@app.command("activate")
def activate_command(context: typer.Context, job: JobId, as_json: JsonFlag = False) -> None:
    """Let a paused job go on where it was; end the wait of one before its retry."""
    with connected(context) as client:
        _tell(client.activate(job), as_json=as_json)


# A number below 0 looks like an option.
@app.command("priority", context_settings={"ignore_unknown_options": True})
def priority_command(
    context: typer.Context,
    job: JobId,
    priority: Annotated[int, typer.Argument(help="Higher ones of a queue go first; may be below 0.")],
    as_json: JsonFlag = False,
) -> None:
    """Change how soon a job's turn comes."""
    with connected(context) as client:
        _tell(client.edit(job, {"priority": priority}), as_json=as_json)


@app.command("delete")
def delete_command(context: typer.Context, job: JobId) -> None:
    """Delete a job that has ended, with its figures, log and artifacts."""
    with connected(context) as client:
        client.delete_job(job)
    out.print(f"{job}  deleted", markup=False)


@app.command("rerun")
def rerun_command(  # one parameter an option
    context: typer.Context,
    job: JobId,
    dataset: Annotated[str | None, typer.Option("--dataset", "-d", help="Another one; as in submit.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Another one; as in submit.")] = None,
    weights: Weights = None,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="JSON or YAML file with what is to be different.")
    ] = None,
    settings: Settings = None,
    tag: Annotated[list[str] | None, typer.Option(help="In place of its tags; may be repeated.")] = None,
    priority: Annotated[int | None, typer.Option(help="Another priority.")] = None,
    max_runtime: MaxRuntime = None,
    key: Key = None,
    wait: Wait = False,
    timeout: Timeout = None,
    as_json: JsonFlag = False,
) -> None:
    """Submit a job again, the same but for the options. Exit codes as of submit."""
    values = read_config(config, settings or [])
    deadline = deadline_in(timeout)
    with connected(context) as client:
        edits = _given(weights=weights, name=name, tags=tag, priority=priority, max_runtime_s=max_runtime)
        edits |= {"config": values} if values else {}
        edits |= {"dataset": _dataset_id(client, dataset, deadline, quiet=as_json)} if dataset else {}
        edits |= {"architecture": _architecture_id(client, model)} if model else {}
        made = client.rerun(job, edits, idempotency_key=key)
        made = _submitted(client, made, deadline, wait=wait, quiet=as_json)
    _tell_submitted(made, wait=wait, as_json=as_json)


def _tell(job: Job, *, as_json: bool) -> None:
    if as_json:
        print_json(job.as_json())
    else:
        print_state(job)
