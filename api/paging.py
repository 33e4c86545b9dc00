"""Pages of a list over HTTP: limit, cursor, and the link to the next one."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request, Response

Limit = Annotated[int, Query(ge=1, le=500, description="Most items of a page.")]
Cursor = Annotated[str | None, Query(max_length=80, description="`next` of the page before.")]


def link_next(request: Request, response: Response, cursor: str | None) -> None:
    """Set the Link header (RFC 8288) where there is a next page."""
    if cursor is not None:
        url = request.url.include_query_params(cursor=cursor)
        response.headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
