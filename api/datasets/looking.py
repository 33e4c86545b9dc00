"""Look into a dataset: images, thumbnails, report, how it differs from another, and all of it as a zip."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import anyio.to_thread
from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from api.access.principal import Caller
from api.datasets.schemas import DatasetDiff, ImagePage
from api.paging import Cursor, Limit, link_next
from api.services import Service

router = APIRouter(prefix="/v1/datasets/{dataset_id}", tags=["datasets"])

# The page is made of names and texts that came in an archive: it may show itself and do nothing.
PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"
)
_JPEG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": {}}},
    304: {"description": "The same"},
}
_HTML: dict[int | str, dict[str, Any]] = {200: {"content": {"text/html": {}}}}
_ZIP: dict[int | str, dict[str, Any]] = {200: {"content": {"application/zip": {}}}}
Split = Annotated[Literal["train", "val", "test"] | None, Query(description="Only of this split.")]
ClassName = Annotated[
    str | None, Query(alias="class", max_length=200, description="Only with a box of this class, by name.")
]


@router.get("/statistics", summary="Show what was counted")
def statistics(dataset_id: str, caller: Caller, service: Service) -> dict[str, Any]:
    """Return counts of classes, box sizes and positions; 409 until the dataset is ready or inspected."""
    return service.datasets.statistics(caller, dataset_id)


@router.get("/images", summary="List the images")
def images(
    request: Request,
    response: Response,
    dataset_id: str,
    caller: Caller,
    service: Service,
    limit: Limit = 50,
    cursor: Cursor = None,
    split: Split = None,
    class_: ClassName = None,
) -> ImagePage:
    """Return images in the manifest's order with size and boxes; 409 until the dataset is ready."""
    page = service.datasets.images(caller, dataset_id, limit=limit, cursor=cursor, split=split, class_=class_)
    link_next(request, response, page.next)
    return page


@router.get("/thumbnails/{n}", response_class=Response, responses=_JPEG, summary="Show an image, small")
def thumbnail(
    request: Request,
    dataset_id: str,
    n: Annotated[int, Path(ge=0, le=10**9, description="Position among the images.")],
    caller: Caller,
    service: Service,
) -> Response:
    """Return the small picture, with its boxes drawn, of the image at a position."""
    found = service.datasets.thumbnail(caller, dataset_id, n)
    headers = {"ETag": f'"{found.digest[:32]}-{n}"', "Cache-Control": "private, no-cache"}
    if found.is_final:
        headers["Cache-Control"] = "private, max-age=31536000, immutable"
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(found.content(n), media_type="image/jpeg", headers=headers)


@router.get("/report.html", response_class=Response, responses=_HTML, summary="Show the report as a page")
def report_page(dataset_id: str, caller: Caller, service: Service) -> Response:
    """Return the intake's report as one HTML file that needs nothing else."""
    name, page = service.datasets.report_page(caller, dataset_id)
    headers = {
        "Content-Security-Policy": PAGE_POLICY,
        "Content-Disposition": f'inline; filename="{name}-report.html"',
    }
    return Response(page, media_type="text/html", headers=headers)


@router.get("/diff", summary="Compare with another dataset")
def diff(
    dataset_id: str,
    caller: Caller,
    service: Service,
    other: Annotated[str, Query(max_length=48, description="Id of the dataset to compare with.")] = "",
) -> DatasetDiff:
    """Return what `other` has more, less or otherwise: images by content, splits, boxes, classes."""
    return DatasetDiff.model_validate(service.datasets.diff(caller, dataset_id, other))


@router.get("/export", response_class=StreamingResponse, responses=_ZIP, summary="Download the dataset")
async def export(
    dataset_id: str,
    caller: Caller,
    service: Service,
    form: Annotated[Literal["yolo", "coco"], Query(alias="format")] = "yolo",
) -> StreamingResponse:
    """Return a zip of pictures and labels; the same dataset gives the same bytes."""
    name, pieces = await anyio.to_thread.run_sync(lambda: service.datasets.export(caller, dataset_id, form))
    headers = {"Content-Disposition": f'attachment; filename="{name}-{form}.zip"'}
    return StreamingResponse(pieces, media_type="application/zip", headers=headers)
