"""Weights: `curl -T best.pt '.../v1/weights?name=best'`, what became of it, what a network takes from it."""

from __future__ import annotations

from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError

from api.access.principal import Caller
from api.datasets.orders import MAX_NAME, NAME_PATTERN, inlined, is_order, read_json
from api.domain.blobs import Blob
from api.domain.records import Principal
from api.domain.weights import CreatedWeights
from api.domain.weights_records import WeightsStatus
from api.errors import TooLargeError
from api.paging import Cursor, Limit, link_next
from api.services import Service, Services
from api.uploads.receive import receive_blob
from api.uploads.service import UploadService
from api.uploads.tus import Uploads
from api.weights.schemas import FitView, WeightsDetail, WeightsOrder, WeightsPage, WeightsView
from api.weights.service import check_head
from yolocore.spec.start import HEAD_BYTES

router = APIRouter(prefix="/v1/weights", tags=["weights"])

_UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The checkpoint itself, or, as JSON, where it is already.",
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "application/json": {"schema": inlined(WeightsOrder)},
        },
    },
    "parameters": [
        {
            "name": "Repr-Digest",
            "in": "header",
            "description": "sha-256=:base64: of the file; checked if given.",
            "schema": {"type": "string", "pattern": "^sha-256=:[A-Za-z0-9+/]{43}=:$"},
        }
    ],
}
Name = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=MAX_NAME,
        pattern=NAME_PATTERN,
        description="What they are called; unique among the caller's weights. Needed beside a file.",
    ),
]
FileName = Annotated[
    str | None, Query(max_length=255, description="What the file is called at the sender's; kept as said.")
]
Other = Annotated[
    str, Query(max_length=60, description="Id of an architecture, or the name of a public model file.")
]
NumClasses = Annotated[int | None, Query(ge=1, le=10_000, description="Instead of the YAML's own nc.")]


@router.put("", status_code=202, openapi_extra=_UPLOAD, summary="Upload weights")
@router.post("", status_code=202, openapi_extra=_UPLOAD, summary="Upload weights")
async def upload(
    request: Request,
    response: Response,
    caller: Caller,
    service: Service,
    uploads: Uploads,
    name: Name = None,
    file_name: FileName = None,
) -> WeightsView:
    """Take a checkpoint as the body, or an order for bytes that are here; its import follows the answer.

    The same bytes under the same name give the weights that are there.
    """
    if is_order(request):
        order = await read_json(request, WeightsOrder, max_bytes=service.settings.max_json_bytes)
        entered = await anyio.to_thread.run_sync(lambda: _ordered(order, caller, service, uploads))
    elif name is None:
        told = {"type": "missing", "loc": ("query", "name"), "msg": "Field required", "input": None}
        raise RequestValidationError([told])
    else:
        entered = await _received(request, name, file_name, caller, service, uploads)
    service.kick()
    view = WeightsView.of(entered.weights)
    response.headers["Location"] = view.links["self"]
    if view.status is not WeightsStatus.IMPORTING:
        response.status_code = 200
    return view


def _ordered(
    order: WeightsOrder, caller: Principal, service: Services, uploads: UploadService
) -> CreatedWeights:
    """Make weights of bytes that are stored; raises what they are not."""
    file_name = order.file_name
    if order.upload is not None:
        file = uploads.content(caller, order.upload)
        file_name = file_name or uploads.get(caller, order.upload).metadata.get("filename")
    else:
        assert order.sha256 is not None
        file = uploads.own_content(caller, order.sha256)
    if file.size_bytes > service.settings.max_weights_bytes:
        message = f"weights may have {service.settings.max_weights_bytes} bytes at most"
        raise TooLargeError("CONTENT_TOO_LARGE", message)
    service.weights.check_stored(file)
    return _enter(caller, order.name, file, file_name, service)


async def _received(
    request: Request,
    name: str,
    file_name: str | None,
    caller: Principal,
    service: Services,
    uploads: UploadService,
) -> CreatedWeights:
    """Receive the body as a file of weights."""

    def check_content(sha256: str | None, size_bytes: int | None) -> None:
        service.weights.check_name(caller, name, sha256=sha256, size_bytes=size_bytes)
        # Without a digest the same bytes may be there already, which cost nothing.
        if size_bytes is not None and sha256 is not None:
            uploads.check_quota(caller, size_bytes, sha256)

    blob = await receive_blob(
        request,
        service.blobs,
        room=uploads.room,
        max_bytes=service.settings.max_weights_bytes,
        head_bytes=HEAD_BYTES,
        check_head=check_head,
        check_content=check_content,
    )
    return await anyio.to_thread.run_sync(lambda: _enter(caller, name, blob, file_name, service))


def _enter(
    caller: Principal, name: str, file: Blob, file_name: str | None, service: Services
) -> CreatedWeights:
    return service.weights.enter(
        caller,
        name,
        file,
        file_name=file_name or f"{name}.pt",
        max_owner_bytes=service.settings.max_dataset_bytes_per_owner,
    )


@router.get("", summary="List weights")
def list_weights(
    request: Request,
    response: Response,
    caller: Caller,
    service: Service,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> WeightsPage:
    """Return weights, newest first."""
    page = service.weights.list(caller, limit=limit, cursor=cursor)
    link_next(request, response, page.next)
    return WeightsPage(items=[WeightsView.of(row) for row in page.items], next=page.next)


@router.get("/{weights_id}", summary="Show weights")
def show(weights_id: str, caller: Caller, service: Service) -> WeightsDetail:
    """Return weights with the report of their import: every problem, every tensor by name and shape."""
    weights = service.weights.get(caller, weights_id)
    return WeightsDetail.with_report(weights, service.weights.report(weights))


@router.get("/{weights_id}/fit", summary="Hold weights against a network")
def fit(
    weights_id: str,
    caller: Caller,
    service: Service,
    architecture: Other = "yolov5n",
    num_classes: NumClasses = None,
) -> FitView:
    """Tell which tensors a network takes from these weights, and which are left out for what reason."""
    return service.weights.fit(
        caller, weights_id, service.architectures, architecture=architecture, num_classes=num_classes
    )


@router.delete("/{weights_id}", status_code=204, summary="Delete weights")
def delete(weights_id: str, caller: Caller, service: Service) -> None:
    """Remove weights no unfinished job needs."""
    service.weights.delete(caller, weights_id)
