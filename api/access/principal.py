"""Who a route is called by, as the gate found out, and what of others' things they may see."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request

from api.domain.records import Principal


def _caller(request: Request) -> Principal:
    return cast(Principal, request.state.principal)


def _maybe_caller(request: Request) -> Principal | None:
    return cast(Principal | None, getattr(request.state, "principal", None))


Caller = Annotated[Principal, Depends(_caller)]
"""The principal of a request under /v1."""
MaybeCaller = Annotated[Principal | None, Depends(_maybe_caller)]
"""The same of an address that may be open to everyone; None for a stranger."""


def owner_filter(caller: Principal) -> str | None:
    """Return the owner whose things the caller may see; None means everyone's."""
    return None if caller.is_admin else caller.id
