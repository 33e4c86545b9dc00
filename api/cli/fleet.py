"""`trainshed fleet`: the workers, what each does and what ails it, and how full the queues are."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.text import Text

from api.cli.datasets import JsonFlag
from api.cli.jobtext import duration
from api.cli.session import connected, out, print_json
from api.client import Queue, Worker


def fleet_command(
    context: typer.Context,
    clear: Annotated[
        str | None, typer.Option(help="Id of an unhealthy worker that may take work again.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show queues and workers, and why a worker is unhealthy."""
    with connected(context) as client:
        if clear is not None:
            client.clear_worker(clear)
        queues, workers = client.queues(), client.workers()
    if as_json:
        found = {
            "queues": [item.as_json() for item in queues],
            "workers": [item.as_json() for item in workers],
        }
        print_json(found)
        return
    now = time.time()
    for line in (*map(queue_line, queues), *(worker_line(worker, now) for worker in workers)):
        out.print(line)
    if not workers:
        out.print("no worker has announced itself", markup=False)


def queue_line(queue: Queue) -> Text:
    """Return what waits, runs and works in a queue; red where nobody would do its work."""
    idle = f" ({queue.idle} idle)" if queue.workers else ""
    took = f"  a job took {duration(queue.median_run_s)}" if queue.median_run_s is not None else ""
    text = f"queue {queue.name}  {queue.queued} queued  {queue.running} running  {queue.workers} workers"
    return Text(text + idle + took, style="red" if queue.queued and not queue.workers else "")


def worker_line(worker: Worker, now: float) -> Text:
    """Return what a worker does and when it was last heard of; red with the reason if it is unhealthy."""
    seen = f"seen {duration(now - worker.seen_at)} ago" if worker.seen_at is not None else ""
    parts = [f"worker {worker.id}", worker.queue, worker.state, worker.current_id or "", seen]
    text = "  ".join(part for part in parts if part)
    unhealthy = worker.state == "unhealthy" or worker.reason is not None
    return Text(f"{text}  {worker.reason or ''}".rstrip(), style="red" if unhealthy else "")
