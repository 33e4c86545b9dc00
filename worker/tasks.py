"""What a message makes a slot do: claim the next job or ingest from the book, and see it through.

A message carries nothing. One that finds nothing to claim is not an error: somebody else was quicker, or the
dispatcher asked twice. It must not know Celery.
"""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass, field

import structlog

from api.domain import wire
from api.domain.blobs import BlobStore
from api.domain.errors import StoreUnavailable
from api.domain.fleet import WorkerBook
from api.domain.runs import RunBook
from api.domain.settings import Settings
from api.domain.store import Store, open_store
from api.domain.tasks import TaskBook
from worker.cache import DatasetCache
from worker.child import Spawner, module_command
from worker.fleet import Presence, SlotSpec
from worker.intake import Intake, IntakeTools
from worker.supervisor import Supervisor, Tools

_LOG = structlog.get_logger(__name__)
TRAINER_COMMAND = module_command("worker.trainer")
INGEST_COMMAND = module_command("worker.ingest")
EX_UNAVAILABLE = 69


@dataclass
class WorkerSlot:
    """Everything one slot holds for its life; made by `open`, ended by `close`."""

    settings: Settings
    spec: SlotSpec
    store: Store
    jobs: RunBook
    tasks: TaskBook
    blobs: BlobStore
    cache: DatasetCache
    presence: Presence
    drain: threading.Event
    trainer_command: tuple[str, ...] = TRAINER_COMMAND
    ingest_command: tuple[str, ...] = INGEST_COMMAND
    spawner: Spawner = field(default_factory=Spawner)
    exit_code: int = 0

    @classmethod
    def open(
        cls,
        settings: Settings,
        spec: SlotSpec,
        *,
        trainer_command: tuple[str, ...] = TRAINER_COMMAND,
        ingest_command: tuple[str, ...] = INGEST_COMMAND,
    ) -> WorkerSlot:
        """Open book and blobs; the commands are what children run, their folder is appended."""
        store = open_store(settings)
        blobs = BlobStore(settings.blobs_dir)
        drain = threading.Event()
        return cls(
            settings=settings,
            spec=spec,
            store=store,
            jobs=RunBook(store, settings),
            tasks=TaskBook(store, settings),
            blobs=blobs,
            cache=DatasetCache(settings.cache_dir, blobs),
            presence=Presence(WorkerBook(store), spec, drain, period_s=settings.heartbeat_s),
            drain=drain,
            trainer_command=trainer_command,
            ingest_command=ingest_command,
        )

    def close(self) -> None:
        """Say that the slot is gone and let go of everything."""
        self.presence.stop()
        self.spawner.close()
        self.store.close()

    def is_open(self) -> bool:
        """Tell whether the slot takes new work."""
        return not self.drain.is_set() and self.exit_code == 0

    def retire(self) -> None:
        """End this process after a child left something behind that could not be killed."""
        _LOG.error("a child left processes behind, the slot is unhealthy", slot=self.spec.id)
        self.exit_code = EX_UNAVAILABLE
        self.presence.show("unhealthy")
        os.kill(os.getpid(), signal.SIGTERM)


def train_next(slot: WorkerSlot) -> bool:
    """Claim the next job of the slot's queues and run it; tell whether there was one."""
    if not slot.is_open():
        return False
    tools = Tools(
        settings=slot.settings,
        book=slot.jobs,
        blobs=slot.blobs,
        cache=slot.cache,
        spawner=slot.spawner,
        slot=slot.spec,
        drain=slot.drain,
        trainer_command=slot.trainer_command,
    )
    for queue in slot.spec.queues:
        if queue == wire.QUEUE_INGEST:
            continue
        try:
            claim = slot.jobs.claim(queue, slot.spec.id, host=slot.spec.host, gpus=slot.spec.gpus)
        except StoreUnavailable as error:
            _LOG.warning("database is away, nothing claimed", error=error.message)
            return False
        if claim is not None:
            supervisor = Supervisor(claim, tools)
            _busy(slot, claim.job.id, supervisor)
            return True
    return False


def ingest_next(slot: WorkerSlot) -> bool:
    """Claim the next ingest and run it; tell whether there was one."""
    if not slot.is_open():
        return False
    try:
        task = slot.tasks.claim(wire.QUEUE_INGEST, slot.spec.id)
    except StoreUnavailable as error:
        _LOG.warning("database is away, nothing claimed", error=error.message)
        return False
    if task is None:
        return False
    tools = IntakeTools(slot.settings, slot.tasks, slot.blobs, slot.spawner, slot.drain, slot.ingest_command)
    _busy(slot, task.subject_id, Intake(task, tools))
    return True


def _busy(slot: WorkerSlot, what: str, work: Supervisor | Intake) -> None:
    slot.presence.show("busy", what)
    try:
        work.run()
    finally:
        slot.presence.show("idle")
    if not work.left_nothing:
        slot.retire()
