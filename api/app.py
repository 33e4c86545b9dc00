"""The application: what it consists of, in which order it starts and stops, and nothing else.

`create_app` may be called many times in one process; importing this file opens nothing. It never loads torch
or OpenCV.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread
from fastapi import FastAPI, Request, Response
from starlette.middleware import Middleware
from starlette.types import Scope

from api import errors
from api.access import routes as access_routes
from api.access.gate import Gate
from api.architectures import routes as architecture_routes
from api.dashboard.routes import mount_dashboard
from api.datasets import looking as dataset_looking
from api.datasets import routes as dataset_routes
from api.domain.records import Principal
from api.domain.settings import Settings, get_settings
from api.domain.uploads import UploadBook
from api.events import routes as event_routes
from api.fleet import routes as fleet_routes
from api.jobs import badges, probes
from api.jobs import results as result_routes
from api.jobs import routes as job_routes
from api.loops.nudges import Nudges
from api.loops.run import run_loops
from api.openapi import DescribedApp
from api.services import Services, open_services
from api.uploads import tus
from api.uploads.parts import PartStore
from api.uploads.service import UploadService
from api.weights import routes as weights_routes

log = logging.getLogger("trainshed.api")

ROUTERS = (
    access_routes.router,
    tus.router,
    dataset_routes.router,
    dataset_looking.router,
    architecture_routes.router,
    weights_routes.router,
    job_routes.router,
    badges.router,
    probes.router,
    result_routes.router,
    event_routes.router,
    fleet_routes.router,
)
# Their routes bound what they read.
UPLOADS = (
    *(("PUT", "/v1/datasets"), ("POST", "/v1/datasets"), ("POST", "/v1/uploads")),
    *(("PUT", "/v1/weights"), ("POST", "/v1/weights")),
)
PIECES = ("PATCH", "/v1/uploads/")


def create_app(
    settings: Settings | None = None, *, with_loops: bool = True, nudges: Nudges | None = None
) -> FastAPI:
    """Build the application; the database is expected to be migrated when it starts.

    `with_loops` runs dispatcher, reaper and collector beside it; `nudges` replaces the way they call workers.
    """
    services = open_services(settings or get_settings())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with _running(services, with_loops=with_loops, nudges=nudges):
            yield

    app = DescribedApp(
        title="Trainshed",
        version="1",
        description="Upload a dataset and a model YAML, train a YOLOv5 detector, watch it live.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        middleware=[_gate(services)],
    )
    app.state.services = services
    app.state.uploads = _uploads(services)
    errors.install(app)
    app.add_exception_handler(event_routes.AlreadyReadError, _already_read)
    for router in ROUTERS:
        app.include_router(router)
    mount_dashboard(app)
    return app


@asynccontextmanager
async def _running(services: Services, *, with_loops: bool, nudges: Nudges | None) -> AsyncIterator[None]:
    """Start hub and loops; stop them in the other order, and close the store last."""
    await services.hub.start()
    try:
        if with_loops:
            services.loops = await anyio.to_thread.run_sync(
                lambda: run_loops(services.settings, services.store, nudges=nudges)
            )
        yield
    finally:
        await services.hub.stop()
        if services.loops is not None and not await anyio.to_thread.run_sync(services.loops.stop):
            log.warning("a loop did not end in time")
        services.store.close()


def _gate(services: Services) -> Middleware:
    async def authenticate(token: str) -> Principal | None:
        return await anyio.to_thread.run_sync(services.tokens.verify, token)

    settings = services.settings
    return Middleware(
        Gate,
        authenticate=authenticate,
        trusted_hosts=settings.answered_hosts,
        max_body_bytes=max(settings.max_json_bytes, settings.max_architecture_bytes),
        unbounded=_is_upload,
        open_paths=[badges.PATH] if settings.public_badges else [],
    )


def _is_upload(scope: Scope) -> bool:
    """Tell whether a request carries an archive, whose route has a limit of its own."""
    method, path = scope["method"], scope["path"]
    return (method, path) in UPLOADS or (method == PIECES[0] and path.startswith(PIECES[1]))


def _uploads(services: Services) -> UploadService:
    parts = PartStore(services.settings.uploads_dir)
    return UploadService(UploadBook(services.store), parts, services.blobs, services.settings)


async def _already_read(_: Request, __: Exception) -> Response:
    return Response(status_code=204)
