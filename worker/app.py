"""The worker process: `python -m worker.app --queues train.cpu --slot 0`. One slot, one run at a time.

Builds what a slot needs, registers the tasks, and hands the main thread to Celery. On SIGTERM it drains: the
run under way is asked to checkpoint and goes back to its queue. It must not load torch; children do.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import warnings
from collections.abc import Sequence
from types import FrameType

import structlog
from celery import Celery, signals
from celery.exceptions import CPendingDeprecationWarning, SecurityWarning

from api.domain import wire
from api.domain.queueing import celery_app
from api.domain.settings import Settings, settings_or_exit
from worker.fleet import make_slot
from worker.tasks import WorkerSlot, hold_while_unhealthy, ingest_next, train_next

_LOG = structlog.get_logger(__name__)
EX_USAGE = 64


def build_app(slot: WorkerSlot) -> Celery:
    """Return the Celery application with this slot's tasks; messages carry nothing, so neither do they."""
    app = celery_app(slot.settings)

    def train() -> None:
        hold_while_unhealthy(slot)
        train_next(slot)

    def ingest() -> None:
        hold_while_unhealthy(slot)
        ingest_next(slot)

    # Not shared: they are bound to this slot, and Celery gives shared ones to every other app of the process.
    app.task(train, name=wire.TASK_TRAIN, ignore_result=True, shared=False)
    app.task(ingest, name=wire.TASK_INGEST, ignore_result=True, shared=False)
    return app


def run(slot: WorkerSlot) -> int:
    """Serve until told to stop, drain, and return the process's exit code."""
    app = build_app(slot)

    def drain(**_: object) -> None:
        slot.drain.set()

    # Sent from the signal handler, before Celery begins to wait for the task that runs.
    signals.worker_shutting_down.connect(drain, weak=False)
    worker = app.Worker(
        hostname=f"{slot.spec.queues[0]}-{slot.spec.number}@{slot.spec.host}",
        queues=",".join(slot.spec.queues),
        pool_cls="threads",
        concurrency=1,
        loglevel="WARNING",
        quiet=True,
        redirect_stdouts=False,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    try:
        slot.presence.start()
        slot.be_ready()
        worker.start()
    finally:
        slot.close()
    return slot.exit_code or worker.exitcode or 0


def end_in_order() -> None:
    """Let a SIGTERM that comes before Celery listens, with nothing to drain yet, end this process well."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, leave)


def watch_lifeline() -> None:
    """Drain this process once standard input ends, which means that whoever started it is gone."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; exits with code 2 where it is wrong, as argparse does."""
    parser = argparse.ArgumentParser(prog="python -m worker.app", description="Serve one slot of a queue.")
    parser.add_argument("--queues", default="train.cpu", help="queues, separated by commas")
    parser.add_argument("--slot", type=int, default=0, help="number of this slot on this machine, from 0")
    parser.add_argument(
        "--lifeline",
        action="store_true",
        help="drain when standard input ends (used by the one-machine stack)",
    )
    return parser.parse_args(arguments)


def configure_logs() -> None:
    """Send log lines to standard error, one per event."""
    # Celery's advice against root is about pickled messages, the other about late acks: we have neither.
    warnings.simplefilter("ignore", SecurityWarning)
    warnings.simplefilter("ignore", CPendingDeprecationWarning)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer(colors=False),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def main(arguments: Sequence[str], settings: Settings | None = None) -> int:
    """Run the worker; `settings` default to the environment's, wrong ones end it with code 2."""
    options = parse_arguments(arguments)
    configure_logs()
    end_in_order()
    settings = settings or settings_or_exit("trainshed worker")
    try:
        spec = make_slot(tuple(options.queues.split(",")), options.slot)
    except ValueError as error:
        _LOG.error("no slot", reason=str(error))
        return EX_USAGE
    if options.lifeline:
        watch_lifeline()
    return run(WorkerSlot.open(settings, spec))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
