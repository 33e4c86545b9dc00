"""Datasets: `curl -T ds.zip '.../v1/datasets?name=ds'` and what became of it."""

from __future__ import annotations

from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Query, Request, Response

from api.access.principal import Caller
from api.datasets.schemas import DatasetPage, DatasetView, ProblemPage
from api.domain.records import DatasetStatus
from api.errors import UnsupportedMediaError
from api.paging import Cursor, Limit, link_next
from api.services import Service
from api.uploads.archives import HEAD_BYTES, archive_kind
from api.uploads.receive import receive_blob
from api.uploads.tus import Uploads

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

_ARCHIVE = {"schema": {"type": "string", "format": "binary"}}
_UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The archive itself: zip, tar, tar.gz or tar.zst.",
        "content": {"application/zip": _ARCHIVE, "application/octet-stream": _ARCHIVE},
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
    str,
    Query(
        min_length=1,
        max_length=120,
        pattern=r"^[^\s/\\\x00-\x1f\x7f]([^/\\\x00-\x1f\x7f]*[^\s/\\\x00-\x1f\x7f])?$",
        description="What it is called; unique among the caller's datasets.",
    ),
]


@router.put("", status_code=202, openapi_extra=_UPLOAD, summary="Upload a dataset")
@router.post("", status_code=202, openapi_extra=_UPLOAD, summary="Upload a dataset")
async def upload(
    request: Request, response: Response, name: Name, caller: Caller, service: Service, uploads: Uploads
) -> DatasetView:
    """Take an archive as the body; the answer comes when it is stored, its intake goes on after that.

    The same bytes under the same name give the dataset that is there.
    """
    kind = "zip"

    def check_head(head: bytes) -> None:
        nonlocal kind
        found = archive_kind(head)
        if found is None:
            place = {
                "pointer": "",
                "message": "the first bytes are of no known archive",
                "value": repr(head[:8]),
            }
            raise UnsupportedMediaError(
                "NOT_AN_ARCHIVE", "send a zip, tar, tar.gz or tar.zst as the body", errors=[place]
            )
        kind = found

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
    entered = await anyio.to_thread.run_sync(
        lambda: service.datasets.enter(caller, name, blob, file_name=f"{name}.{kind}")
    )
    service.kick()
    view = DatasetView.of(entered.dataset)
    response.headers["Location"] = view.links["self"]
    if view.status is not DatasetStatus.INGESTING:
        response.status_code = 200
    return view


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


@router.get("/{dataset_id}/statistics", summary="Show what was counted")
def statistics(dataset_id: str, caller: Caller, service: Service) -> dict[str, Any]:
    """Return counts of classes, box sizes and positions; 409 until the dataset is ready."""
    return service.datasets.statistics(caller, dataset_id)
