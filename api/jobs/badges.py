"""A picture of one figure for a README: the latest job of a label that succeeded, and what it reached.

Told to whoever has a token; to everyone only where `public_badges` is set, since the proxies that fetch
pictures for README pages have neither token nor session. A token in the address is never looked at: addresses
end up in logs.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from xml.sax.saxutils import escape

from fastapi import APIRouter, Header, Query, Response

from api.access.principal import MaybeCaller, owner_filter
from api.jobs.etags import matches
from api.services import Service

router = APIRouter(prefix="/v1", tags=["jobs"])

Metric = Literal["map50", "map50_95", "precision", "recall", "fitness"]
PATH = "/v1/badge.svg"
NO_RESULT = "no result"
# Of Okabe and Ito (2008), told apart by any eye: blue, orange, grey; with the text each can carry.
_GOOD, _FAIR, _NONE = ("#0072b2", "#fff"), ("#e69f00", "#000"), ("#595959", "#fff")
_GOOD_FROM = 0.5
_HEIGHT, _PER_CHARACTER, _MARGIN = 20, 7, 12
_SVG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/svg+xml": {}}},
    304: {"description": "It is still the one that If-None-Match names."},
}


@router.get("/badge.svg", summary="Show a figure as a badge", response_class=Response, responses=_SVG)
def badge(
    caller: MaybeCaller,
    service: Service,
    label: Annotated[str, Query(min_length=1, max_length=120, description="A tag or name of jobs.")],
    metric: Annotated[Metric, Query(description="A figure of the best epoch.")] = "map50",
    if_none_match: Annotated[str | None, Header(description="An ETag: 304 if it is still that.")] = None,
) -> Response:
    """Draw the figure of the newest succeeded job of a label; `no result` where there is none."""
    owner = owner_filter(caller) if caller is not None else None
    job = service.jobs.book.latest(label, owner)
    picture = draw(f"{label} {metric}", value_of(job.best if job is not None else None, metric))
    etag = f'"{hashlib.sha256(picture.encode()).hexdigest()[:32]}"'
    # A proxy may keep what everyone may see, but has to ask whether it still holds.
    kept = "public, max-age=60" if caller is None else "private, no-cache"
    headers = {"ETag": etag, "Cache-Control": kept, "Vary": "Authorization, Cookie"}
    if if_none_match is not None and matches(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    return Response(picture, media_type="image/svg+xml", headers=headers)


def value_of(best: Mapping[str, Any] | None, metric: str) -> float | None:
    """Return a figure of a best epoch; None where it was not measured."""
    value = (best or {}).get(metric)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def draw(label: str, value: float | None) -> str:
    """Return a badge: a label on grey beside a value on the colour of how good it is, 0 to 1.

    The value is there in digits, so that the colour says nothing alone.
    """
    left, right = _clean(label), NO_RESULT if value is None else f"{value:.3f}"
    colour, ink = _NONE if value is None else _GOOD if value >= _GOOD_FROM else _FAIR
    first, second = (_PER_CHARACTER * len(text) + _MARGIN for text in (left, right))
    told = escape(f"{left}: {right}", {'"': "&quot;"})
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{first + second}" height="{_HEIGHT}" role="img" '
        f'aria-label="{told}"><title>{told}</title>'
        f'<rect width="{first}" height="{_HEIGHT}" fill="#333"/>'
        f'<rect x="{first}" width="{second}" height="{_HEIGHT}" fill="{colour}"/>'
        '<g font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">'
        f"{_text(left, first / 2, first, '#fff')}{_text(right, first + second / 2, second, ink)}</g></svg>\n"
    )


def _text(text: str, x: float, width: int, ink: str) -> str:
    # Its length is set, so that it fits whatever font there is.
    length = max(1, width - _MARGIN)
    return f'<text x="{x:g}" y="14" fill="{ink}" textLength="{length}">{escape(text)}</text>'


def _clean(text: str) -> str:
    """Replace what XML must not hold, escaped or not (XML 1.0, 2.2)."""
    return "".join(
        character if _is_allowed(ord(character)) else "\N{REPLACEMENT CHARACTER}" for character in text
    )


def _is_allowed(code: int) -> bool:
    return 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or code >= 0x10000
