"""What a message makes a slot do: claim the next job or task from the book, and see it through.

A message carries nothing. One that finds nothing to claim is not an error: somebody else was quicker, or the
dispatcher asked twice. It must not know Celery.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from api.domain import wire
from api.domain.blobs import BlobStore
from api.domain.errors import StoreUnavailable
from api.domain.fleet import WorkerBook
from api.domain.runs import RunBook
from api.domain.settings import Settings
from api.domain.store import Store, open_store
from api.domain.tasks import TaskBook
from api.domain.weights import KIND_WEIGHTS
from worker.cache import DatasetCache
from worker.child import Spawner, child_command, module_command
from worker.errand import Errand, ErrandTools
from worker.fleet import Presence, SlotSpec
from worker.intake import Intake
from worker.memory import GpuMemory, LeftoverCheck, NvidiaSmi, oom_counter
from worker.probing import Probing
from worker.standby import Standby, trainer_environment
from worker.supervisor import Supervisor, Tools
from worker.weighing import Weighing

_LOG = structlog.get_logger(__name__)
INGEST_COMMAND = module_command("worker.ingest")
TIMING_COMMAND = module_command("worker.timing")
WEIGHTS_COMMAND = (*module_command("worker.tools"), "import-weights")
EX_UNAVAILABLE = 69


def _end_process() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


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
    workers: WorkerBook
    presence: Presence
    drain: threading.Event
    trainer_command: tuple[str, ...]
    ingest_command: tuple[str, ...] = INGEST_COMMAND
    weights_command: tuple[str, ...] = WEIGHTS_COMMAND
    timing_command: tuple[str, ...] = TIMING_COMMAND
    spawner: Spawner = field(default_factory=Spawner)
    standby: Standby | None = None
    gpu_memory: GpuMemory = field(default_factory=NvidiaSmi)
    # A driver takes memory back some time after its process is gone.
    gpu_patience_s: float = 15.0
    oom_counter: Callable[[int], Path | None] = oom_counter
    end_process: Callable[[], None] = _end_process
    exit_code: int = 0

    @classmethod
    def open(
        cls,
        settings: Settings,
        spec: SlotSpec,
        *,
        trainer_command: tuple[str, ...] | None = None,
        ingest_command: tuple[str, ...] = INGEST_COMMAND,
    ) -> WorkerSlot:
        """Open book and blobs; the commands are what children run, their folder is appended.

        Without a command of its own a slot runs the trainer, or what stands in for it where settings say so.
        """
        store = open_store(settings)
        blobs = BlobStore(settings.blobs_dir)
        drain = threading.Event()
        workers = WorkerBook(store, unhealthy_retry_s=settings.unhealthy_retry_s)
        command = trainer_command or child_command("simulator" if settings.simulate else "trainer")
        spawner = Spawner()
        return cls(
            settings=settings,
            spec=spec,
            store=store,
            jobs=RunBook(store, settings),
            tasks=TaskBook(store, settings),
            blobs=blobs,
            cache=DatasetCache(settings.cache_dir, blobs, max_bytes=settings.cache_max_bytes),
            workers=workers,
            presence=Presence(workers, spec, drain, period_s=settings.heartbeat_s),
            drain=drain,
            trainer_command=command,
            ingest_command=ingest_command,
            spawner=spawner,
            standby=_standby(settings, spec, spawner) if command == child_command("trainer") else None,
        )

    def be_ready(self) -> None:
        """Have a trainer load what it needs while there is nothing to do."""
        if self.standby is not None and self.is_open():
            self.standby.prepare()

    def close(self) -> None:
        """Say that the slot is gone and let go of everything."""
        self.presence.stop()
        if self.standby is not None:
            self.standby.close()
        self.spawner.close()
        self.store.close()

    def is_open(self) -> bool:
        """Tell whether this process takes new work."""
        return not self.drain.is_set() and self.exit_code == 0

    def retire(self, reason: str) -> None:
        """End this process after something was left behind that it cannot remove.

        A new process, or a new container, may find it gone; the book keeps the slot from claiming meanwhile.
        """
        _LOG.error("the slot is unhealthy", slot=self.spec.id, reason=reason)
        self.exit_code = EX_UNAVAILABLE
        self.presence.give_up(reason)
        self.end_process()


def _standby(settings: Settings, spec: SlotSpec, spawner: Spawner) -> Standby | None:
    """Return what keeps a trainer ready, None for a slot that trains nothing or must not keep one."""
    if not settings.prestart or set(spec.queues) <= {wire.QUEUE_INGEST}:
        return None
    environment = trainer_environment(settings, spec)
    return Standby(spawner, child_command("trainer"), environment, settings.data_dir)


def hold_while_unhealthy(slot: WorkerSlot) -> None:
    """Keep the slot's place as long as it must not claim, so that messages go to slots that may."""
    while slot.is_open() and (reason := _unhealthy(slot)) is not None:
        _LOG.warning("the slot is unhealthy and claims nothing", slot=slot.spec.id, reason=reason)
        slot.drain.wait(slot.settings.heartbeat_s)


def _unhealthy(slot: WorkerSlot) -> str | None:
    try:
        return slot.workers.unhealthy(slot.spec.id)
    except StoreUnavailable:
        # Nothing can be claimed either.
        return None


def train_next(slot: WorkerSlot) -> bool:
    """Claim the next probe or job of the slot's queues and run it; tell whether there was one."""
    if not slot.is_open() or _unhealthy(slot) is not None:
        return False
    tools = Tools(
        settings=slot.settings,
        book=slot.jobs,
        blobs=slot.blobs,
        cache=slot.cache,
        spawner=slot.standby or slot.spawner,
        slot=slot.spec,
        drain=slot.drain,
        trainer_command=slot.trainer_command,
        oom_counter=slot.oom_counter,
    )
    for queue in slot.spec.queues:
        if queue == wire.QUEUE_INGEST:
            continue
        try:
            # A probe is short, and somebody waits for it.
            if probe_next(slot, queue):
                return True
            claim = slot.jobs.claim(queue, slot.spec.id, host=slot.spec.host, gpus=slot.spec.gpus)
        except StoreUnavailable as error:
            _LOG.warning("database is away, nothing claimed", error=error.message)
            return False
        if claim is not None:
            supervisor = Supervisor(claim, tools)
            _busy(slot, claim.job.id, supervisor)
            return True
    return False


def probe_next(slot: WorkerSlot, queue: str) -> bool:
    """Claim the next probe of a queue and run it; tell whether there was one. Raises StoreUnavailable."""
    task = slot.tasks.claim(queue, slot.spec.id)
    if task is not None:
        tools = _errand_tools(slot, slot.timing_command)
        _busy(slot, task.id, Probing(task, tools, slot.spec, slot.cache))
    return task is not None


def ingest_next(slot: WorkerSlot) -> bool:
    """Claim the next ingest or import of weights and run it; tell whether there was one."""
    if not slot.is_open() or _unhealthy(slot) is not None:
        return False
    try:
        task = slot.tasks.claim(wire.QUEUE_INGEST, slot.spec.id)
    except StoreUnavailable as error:
        _LOG.warning("database is away, nothing claimed", error=error.message)
        return False
    if task is None:
        return False
    is_weights = task.kind == KIND_WEIGHTS
    tools = _errand_tools(slot, slot.weights_command if is_weights else slot.ingest_command)
    _busy(slot, task.subject_id, Weighing(task, tools) if is_weights else Intake(task, tools))
    return True


def _errand_tools(slot: WorkerSlot, command: tuple[str, ...]) -> ErrandTools:
    return ErrandTools(
        slot.settings,
        slot.tasks,
        slot.blobs,
        slot.spawner,
        slot.drain,
        command,
        oom_counter=slot.oom_counter,
    )


def _busy(slot: WorkerSlot, what: str, work: Supervisor | Errand) -> None:
    slot.presence.show("busy", what)
    devices = LeftoverCheck(slot.gpu_memory, slot.spec.gpus, patience_s=slot.gpu_patience_s)
    try:
        work.run()
        problem = devices.problem() if work.left_nothing else "a child left processes that cannot be ended"
        if problem is not None:
            slot.retire(problem)
    finally:
        slot.presence.show("idle")
        slot.be_ready()
