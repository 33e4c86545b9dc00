"""The browser's session: opened with a token that was pasted, or with the one-time token of a start."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api.access.gate import COOKIE, cookie_of, is_cross_site
from api.access.principal import Caller
from api.domain.records import Principal
from api.domain.tokens import PREFIXES
from api.errors import ForbiddenError, UnauthorizedError
from api.services import Service, Services

router = APIRouter(prefix="/v1", tags=["access"])


class SessionRequest(BaseModel):
    """A token to open a session with."""

    model_config = ConfigDict(extra="forbid")

    token: Annotated[str, Field(min_length=1, max_length=200)]


class SessionView(BaseModel):
    """Who the browser now speaks for."""

    name: str
    scopes: list[str]
    expires_at: float | None = None


@router.post("/session", status_code=201, summary="Open a browser session")
def open_session(body: SessionRequest, request: Request, response: Response, service: Service) -> SessionView:
    """Exchange a token for a cookie that scripts cannot read and other sites cannot use."""
    from_browser = "origin" in request.headers or "sec-fetch-site" in request.headers
    if from_browser and is_cross_site(request.headers):
        raise ForbiddenError("CROSS_SITE", "another site cannot open a session here")
    principal = _principal_of(service, body.token)
    lifetime_s = service.settings.session_s
    session = service.tokens.create(
        principal.name,
        kind="session",
        label="browser",
        scopes=sorted(principal.scopes),
        lifetime_s=lifetime_s,
    )
    response.set_cookie(
        COOKIE,
        session.secret,
        max_age=int(lifetime_s),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return SessionView(name=principal.name, scopes=sorted(principal.scopes), expires_at=session.expires_at)


def _principal_of(service: Services, token: str) -> Principal:
    if token.startswith(PREFIXES["once"]):
        principal = service.tokens.redeem(token)
    else:
        principal = service.tokens.verify(token, kinds=("bearer",))
    if principal is None:
        raise UnauthorizedError("TOKEN_INVALID", "the token is unknown, expired, revoked or used up")
    return principal


@router.get("/session", summary="Tell who this is")
def show_session(caller: Caller) -> SessionView:
    """Return whom the caller's token or session speaks for."""
    return SessionView(name=caller.name, scopes=sorted(caller.scopes))


@router.delete("/session", status_code=204, summary="End the browser session")
def close_session(caller: Caller, request: Request, response: Response, service: Service) -> None:
    """Revoke the session and take the cookie back; a bearer token stays as it is."""
    if "authorization" not in request.headers and cookie_of(request.headers) is not None:
        service.tokens.revoke(caller.token_id)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
