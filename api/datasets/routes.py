"""Datasets: `curl -T ds.zip '.../v1/datasets?name=ds'` and what became of it."""

from __future__ import annotations

from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError

from api.access.principal import Caller
from api.datasets.orders import (
    MAX_NAME,
    NAME_PATTERN,
    ConfirmOrder,
    DatasetOrder,
    inlined,
    is_order,
    read_json,
)
from api.datasets.schemas import DatasetPage, DatasetView, ProblemPage
from api.domain.blobs import Blob
from api.domain.datasets import Created
from api.domain.records import DatasetStatus, Principal
from api.errors import UnsupportedMediaError
from api.paging import Cursor, Limit, link_next
from api.services import Service, Services
from api.uploads.archives import HEAD_BYTES, archive_kind
from api.uploads.receive import receive_blob
from api.uploads.service import UploadService
from api.uploads.tus import Uploads
from yolocore.spec.imports import ImportOptions

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

_ARCHIVE = {"schema": {"type": "string", "format": "binary"}}
_UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The archive itself: zip, tar, tar.gz or tar.zst; or, as JSON, where it is already.",
        "content": {
            "application/zip": _ARCHIVE,
            "application/octet-stream": _ARCHIVE,
            "application/json": {"schema": inlined(DatasetOrder)},
        },
    },
    "parameters": [
        {
            "name": "Repr-Digest",
            "in": "header",
            "description": "sha-256=:base64: of the archive; checked if given.",
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
        description="What it is called; unique among the caller's datasets. Needed beside an archive.",
    ),
]
Inspect = Annotated[
    bool, Query(description="Only look into the archive that is the body; confirm it to have it read.")
]


@router.put("", status_code=202, openapi_extra=_UPLOAD, summary="Upload a dataset")
@router.post("", status_code=202, openapi_extra=_UPLOAD, summary="Upload a dataset")
async def upload(
    request: Request,
    response: Response,
    caller: Caller,
    service: Service,
    uploads: Uploads,
    name: Name = None,
    inspect: Inspect = False,
) -> DatasetView:
    """Take an archive as the body, or an order for bytes that are here; its intake goes on after the answer.

    The same bytes under the same name give the dataset that is there.
    """
    if is_order(request):
        order = await read_json(request, DatasetOrder, max_bytes=service.settings.max_json_bytes)
        entered = await anyio.to_thread.run_sync(lambda: _ordered(order, caller, service, uploads))
    elif name is None:
        told = {"type": "missing", "loc": ("query", "name"), "msg": "Field required", "input": None}
        raise RequestValidationError([told])
    else:
        options = ImportOptions(inspect=True) if inspect else None
        entered = await _received(request, name, options, caller, service, uploads)
    service.kick()
    view = DatasetView.of(entered.dataset)
    response.headers["Location"] = view.links["self"]
    if view.status is not DatasetStatus.INGESTING:
        response.status_code = 200
    return view


def _ordered(order: DatasetOrder, caller: Principal, service: Services, uploads: UploadService) -> Created:
    """Make the dataset of bytes that are stored; raises what they are not."""
    if order.upload is not None:
        archive = uploads.content(caller, order.upload)
    else:
        assert order.sha256 is not None
        archive = uploads.own_content(caller, order.sha256)
    kind = _kind(service.datasets.head(archive, HEAD_BYTES))
    return _enter(caller, order.name, archive, kind, order.options, service)


async def _received(
    request: Request,
    name: str,
    options: ImportOptions | None,
    caller: Principal,
    service: Services,
    uploads: UploadService,
) -> Created:
    """Receive the body as the archive of a dataset."""
    kind = "zip"

    def check_head(head: bytes) -> None:
        nonlocal kind
        kind = _kind(head)

    def check_content(sha256: str | None, size_bytes: int | None) -> None:
        service.datasets.check_name(caller, name, sha256=sha256, size_bytes=size_bytes)
        # Without a digest the same bytes may be there already, which cost nothing.
        if size_bytes is not None and sha256 is not None:
            uploads.check_quota(caller, size_bytes, sha256)

    blob = await receive_blob(
        request,
        service.blobs,
        room=uploads.room,
        max_bytes=service.settings.max_upload_bytes,
        head_bytes=HEAD_BYTES,
        check_head=check_head,
        check_content=check_content,
    )
    return await anyio.to_thread.run_sync(lambda: _enter(caller, name, blob, kind, options, service))


def _enter(
    caller: Principal, name: str, archive: Blob, kind: str, options: ImportOptions | None, service: Services
) -> Created:
    return service.datasets.enter(
        caller,
        name,
        archive,
        file_name=f"{name}.{kind}",
        options=None if options is None else options.model_dump(mode="json"),
        max_owner_bytes=service.settings.max_dataset_bytes_per_owner,
    )


def _kind(head: bytes) -> str:
    """Return what archive begins so; raises UnsupportedMediaError."""
    found = archive_kind(head)
    if found is None:
        place = {"pointer": "", "message": "the first bytes are of no known archive", "value": repr(head[:8])}
        raise UnsupportedMediaError(
            "NOT_AN_ARCHIVE", "send a zip, tar, tar.gz or tar.zst as the body", errors=[place]
        )
    return found


@router.get("", summary="List datasets")
def list_datasets(
    request: Request,
    response: Response,
    caller: Caller,
    service: Service,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> DatasetPage:
    """Return datasets, newest first."""
    page = service.datasets.list(caller, limit=limit, cursor=cursor)
    link_next(request, response, page.next)
    return DatasetPage(items=[DatasetView.of(row) for row in page.items], next=page.next)


@router.get("/{dataset_id}", summary="Show a dataset")
def show(dataset_id: str, caller: Caller, service: Service) -> DatasetView:
    """Return one dataset."""
    return DatasetView.of(service.datasets.get(caller, dataset_id))


@router.post("/{dataset_id}/confirm", status_code=202, summary="Read an archive that was looked at")
def confirm(
    dataset_id: str, caller: Caller, service: Service, order: ConfirmOrder | None = None
) -> DatasetView:
    """Read the same archive by these options, or by those it was looked at; 409 for a dataset that is ready.

    Also for one that was found invalid, which other options may mend.
    """
    looked_at = service.datasets.get(caller, dataset_id).options or {}
    chosen = order.options if order is not None else None
    options = (chosen or ImportOptions.model_validate(looked_at)).model_copy(update={"inspect": False})
    dataset = service.datasets.confirm(caller, dataset_id, options.model_dump(mode="json"))
    service.kick()
    return DatasetView.of(dataset)


@router.post("/{dataset_id}/retry", status_code=202, summary="Look again where the service failed")
def retry(dataset_id: str, caller: Caller, service: Service) -> DatasetView:
    """Look into an archive again; 409 unless the service itself failed at it (`error` SERVICE_ERROR)."""
    dataset = service.datasets.retry(caller, dataset_id)
    service.kick()
    return DatasetView.of(dataset)


@router.delete("/{dataset_id}", status_code=204, summary="Delete a dataset")
def delete(dataset_id: str, caller: Caller, service: Service) -> None:
    """Remove a dataset no unfinished job needs."""
    service.datasets.delete(caller, dataset_id)


@router.get("/{dataset_id}/problems", summary="Show the intake's report")
def problems(
    dataset_id: str,
    caller: Caller,
    service: Service,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
) -> ProblemPage:
    """Return every problem with code, severity, file, line, value and what mends it."""
    return service.datasets.problems(caller, dataset_id, limit=limit)
