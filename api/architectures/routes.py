"""Architectures: model YAMLs, checked as they come in, with line and column for what is wrong."""

from __future__ import annotations

from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Query, Request, Response

from api.access.principal import Caller
from api.architectures.schemas import (
    ArchitecturePage,
    ArchitectureView,
    PublicArchitecture,
    PublicArchitectures,
)
from api.architectures.service import difference_view, facts_of
from api.architectures.views import DifferenceView, PlanView
from api.paging import Cursor, Limit, link_next
from api.services import Service
from yolocore.spec.studio import MAX_BATCH, study
from yolocore.spec.zoo import DETECTORS, zoo_text

router = APIRouter(prefix="/v1/architectures", tags=["architectures"])

_TEXT = {"schema": {"type": "string"}}
_YAML: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The model YAML itself.",
        "content": {"application/yaml": _TEXT, "text/plain": _TEXT},
    }
}
Name = Annotated[
    str,
    Query(
        min_length=1,
        max_length=120,
        pattern=r"^[^\s/\\\x00-\x1f\x7f]([^/\\\x00-\x1f\x7f]*[^\s/\\\x00-\x1f\x7f])?$",
        description="What it is called; unique among the caller's architectures.",
    ),
]
NumClasses = Annotated[int | None, Query(ge=1, le=10_000, description="Instead of the YAML's own nc.")]
ImageSize = Annotated[int, Query(ge=32, le=4096, description="Side in pixels for shapes and FLOPs.")]
Batch = Annotated[int, Query(ge=1, le=MAX_BATCH, description="Pictures in a batch, for memory.")]
DatasetId = Annotated[
    str | None,
    Query(
        max_length=60,
        description="A ready dataset: its classes are used, its boxes are held against the anchors.",
    ),
]
Other = Annotated[
    str, Query(max_length=60, description="Id of an architecture, or the name of a public model file.")
]


@router.post("", status_code=201, openapi_extra=_YAML, summary="Keep a model YAML")
async def create(
    request: Request, response: Response, name: Name, caller: Caller, service: Service
) -> ArchitectureView:
    """Check and keep a model YAML; the same text under the same name gives the one that is there."""
    text = service.architectures.read_text(await request.body())
    row, created = await anyio.to_thread.run_sync(service.architectures.create, caller, name, text)
    response.headers["Location"] = f"/v1/architectures/{row.id}"
    if not created:
        response.status_code = 200
    return ArchitectureView.of(row)


@router.post("/check", openapi_extra=_YAML, summary="Check a model YAML")
async def check(
    request: Request,
    caller: Caller,
    service: Service,
    num_classes: NumClasses = None,
    imgsz: ImageSize = 640,
    batch: Batch = 1,
    dataset: DatasetId = None,
) -> PlanView:
    """Tell all of a model YAML without keeping it: rows, shapes, FLOPs, memory, graph, warnings."""
    text = service.architectures.read_text(await request.body())

    def work() -> PlanView:
        facts = facts_of(service.datasets.get(caller, dataset)) if dataset else None
        return PlanView.of(
            study(text, num_classes=num_classes, imgsz=imgsz, batch=batch, dataset=facts),
        )

    return await anyio.to_thread.run_sync(work)


@router.get("", summary="List architectures")
def list_architectures(
    request: Request,
    response: Response,
    caller: Caller,
    service: Service,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> ArchitecturePage:
    """Return architectures, newest first."""
    page = service.architectures.list(caller, limit=limit, cursor=cursor)
    link_next(request, response, page.next)
    return ArchitecturePage(items=[ArchitectureView.of(row) for row in page.items], next=page.next)


@router.get("/public", summary="List the public model files")
def list_public() -> PublicArchitectures:
    """Return YOLOv5's public model files by name (`yolov5n`, `hub/yolov5-p2`), smallest family first."""
    return PublicArchitectures(
        items=[PublicArchitecture(name=name, text=zoo_text(name)) for name in DETECTORS]
    )


@router.get("/{architecture_id}", summary="Show an architecture")
def show(architecture_id: str, caller: Caller, service: Service) -> ArchitectureView:
    """Return one architecture with its text."""
    return ArchitectureView.of(service.architectures.get(caller, architecture_id))


@router.get("/{architecture_id}/plan", summary="Show its plan")
def plan(
    architecture_id: str,
    caller: Caller,
    service: Service,
    num_classes: NumClasses = None,
    imgsz: ImageSize = 640,
    batch: Batch = 1,
    dataset: DatasetId = None,
) -> PlanView:
    """Tell all of an architecture, for any number of classes, image size, batch and dataset."""
    row = service.architectures.get(caller, architecture_id)
    facts = facts_of(service.datasets.get(caller, dataset)) if dataset else None
    return PlanView.of(
        study(row.text, source=row.name, num_classes=num_classes, imgsz=imgsz, batch=batch, dataset=facts)
    )


@router.get("/{architecture_id}/diff", summary="Compare it with another")
def diff(
    architecture_id: str, caller: Caller, service: Service, other: Other = "yolov5s", imgsz: ImageSize = 640
) -> DifferenceView:
    """Tell what another architecture has different from this one."""
    left = service.architectures.named(caller, service.architectures.get(caller, architecture_id).id)
    return difference_view(left, service.architectures.named(caller, other), imgsz)


@router.post("/{architecture_id}/diff", openapi_extra=_YAML, summary="Compare it with a model YAML")
async def diff_text(
    request: Request, architecture_id: str, caller: Caller, service: Service, imgsz: ImageSize = 640
) -> DifferenceView:
    """Tell what a model YAML, which is not kept, has different from this architecture."""
    row = await anyio.to_thread.run_sync(service.architectures.get, caller, architecture_id)
    text = service.architectures.read_text(await request.body())
    return await anyio.to_thread.run_sync(difference_view, (row.name, row.text), ("model.yaml", text), imgsz)
