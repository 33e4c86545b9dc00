"""Everything a route may need, made once per process and handed in: books, blobs, hub, loops.

The routes know this container; it knows no route. Nothing here is global, so two applications can live in
one test process.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends, Request

from api.architectures.service import ArchitectureService
from api.datasets.service import DatasetService
from api.domain.architectures import ArchitectureBook
from api.domain.blobs import BlobStore
from api.domain.datasets import DatasetBook
from api.domain.fleet import WorkerBook
from api.domain.jobs import JobBook
from api.domain.probes import ProbeBook
from api.domain.settings import Settings
from api.domain.store import Store, open_store
from api.domain.tokens import TokenBook
from api.domain.weights import WeightsBook
from api.events.history import LiveStreams
from api.events.hub import Hub
from api.jobs.service import JobService
from api.loops.run import Loops
from api.weights.service import WeightsService

REDIS_TRIES_S = 0.5


@dataclass
class Services:
    """The parts of one running API."""

    settings: Settings
    store: Store
    blobs: BlobStore
    tokens: TokenBook
    workers: WorkerBook
    datasets: DatasetService
    architectures: ArchitectureService
    weights: WeightsService
    jobs: JobService
    probes: ProbeBook
    hub: Hub
    loops: Loops | None = field(default=None)

    def kick(self) -> None:
        """Let the dispatcher look at once; harmless where the loops run elsewhere."""
        if self.loops is not None:
            self.loops.kick()


def open_services(settings: Settings) -> Services:
    """Make the parts; opens the store's folder and no connection yet."""
    store = open_store(settings)
    blobs = BlobStore(settings.blobs_dir)
    datasets, architectures = DatasetBook(store), ArchitectureBook(store)
    workers = WorkerBook(store)
    weights = WeightsService(WeightsBook(store), blobs)
    jobs = JobService(JobBook(store, settings), datasets, architectures, weights, settings)
    return Services(
        settings=settings,
        store=store,
        blobs=blobs,
        tokens=TokenBook(store),
        workers=workers,
        datasets=DatasetService(datasets, blobs),
        architectures=ArchitectureService(architectures, max_bytes=settings.max_architecture_bytes),
        weights=weights,
        jobs=jobs,
        probes=ProbeBook(store),
        hub=Hub(
            LiveStreams(settings.redis_url, timeout_s=settings.redis_timeout_s),
            jobs.current_snapshots,
            retry_s=REDIS_TRIES_S,
        ),
    )


def _services(request: Request) -> Services:
    return cast(Services, request.app.state.services)


Service = Annotated[Services, Depends(_services)]
