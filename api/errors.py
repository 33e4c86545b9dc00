"""One shape for every answer that is not a success: application/problem+json (RFC 9457) with a stable code.

    ApiError                    status, code, detail, errors; what handlers raise
    |-- BadRequestError         400
    |-- UnauthorizedError       401
    |-- ForbiddenError          403
    |-- NotFoundError           404
    |-- ConflictError           409
    |-- PreconditionFailedError 412
    |-- TooLargeError           413
    |-- UnsupportedMediaError   415
    |-- RangeUnsatisfiableError 416
    |-- UnprocessableError      422
    |-- TooManyError            429
    |-- UnavailableError        503
    `-- StorageFullError        507

It maps the core's and the book's errors too, and turns what nobody foresaw into a 500 without a stack trace.
It must not know any single noun of the service.
"""

from __future__ import annotations

import errno
import logging
import sqlite3
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from api.domain import errors as book
from yolocore.errors import CoreError, Problem

log = logging.getLogger("trainshed.api")

PROBLEM_JSON = "application/problem+json"
_VALUE_LIMIT = 200
# No space, no quota, a file longer than this process may write.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_POSTGRES_FULL = "53100"
_HTTP_CODES = {
    400: "BAD_REQUEST",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    413: "CONTENT_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
}


class FieldError(BaseModel):
    """One thing that is wrong, with its place."""

    pointer: str = Field(description="JSON pointer into the body, or the name of a parameter or header.")
    message: str
    code: str | None = None
    value: str | None = None
    line: int | None = None
    column: int | None = None
    row: int | None = None
    file: str | None = None


class ProblemBody(BaseModel):
    """The body of every answer that is not a success."""

    type: str
    title: str
    status: int
    detail: str
    code: str = Field(description="Stable and machine-readable.")
    errors: list[FieldError] = []
    instance: str | None = None


class ApiError(Exception):
    """A request that cannot be served, for a named reason."""

    status = 500

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        errors: Iterable[Mapping[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.errors = [dict(item) for item in errors]
        self.headers = dict(headers or {})
        self.status = status or type(self).status


class BadRequestError(ApiError):
    """A request that HTTP itself cannot read."""

    status = 400


class UnauthorizedError(ApiError):
    """No credentials, or wrong ones."""

    status = 401

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail, headers={"WWW-Authenticate": 'Bearer realm="trainshed"'})


class ForbiddenError(ApiError):
    """Known who asks, and not allowed."""

    status = 403


class NotFoundError(ApiError):
    """No such thing, or not the caller's."""

    status = 404


class ConflictError(ApiError):
    """The thing is not in a state for it."""

    status = 409


class PreconditionFailedError(ApiError):
    """The thing has changed since the caller looked."""

    status = 412


class TooLargeError(ApiError):
    """A body over its limit."""

    status = 413


class UnsupportedMediaError(ApiError):
    """A body of a kind that is not taken here."""

    status = 415


class RangeUnsatisfiableError(ApiError):
    """A range that begins behind the end."""

    status = 416


class UnprocessableError(ApiError):
    """A body that is readable and wrong."""

    status = 422


class TooManyError(ApiError):
    """The caller has as many of these as allowed."""

    status = 429

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail, headers={"Retry-After": "60"})


class UnavailableError(ApiError):
    """A part of the service is away; asking again later helps."""

    status = 503

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail, headers={"Retry-After": "2"})


class StorageFullError(ApiError):
    """There is no room for the body."""

    status = 507

    def __init__(self, detail: str = "the service has no disk space left for this") -> None:
        super().__init__("STORAGE_FULL", detail)


def is_full(error: BaseException | None) -> bool:
    """Tell whether an error of the file system or the database says that its disk is full."""
    if isinstance(error, OSError):
        return error.errno in _FULL
    if isinstance(error, DBAPIError):
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        return code == sqlite3.SQLITE_FULL or getattr(error.orig, "sqlstate", None) == _POSTGRES_FULL
    return False


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    instance: str | None = None,
    errors: Iterable[Mapping[str, Any]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return the problem+json response itself, for code that runs outside the handlers."""
    body: dict[str, Any] = {
        "type": f"urn:trainshed:problem:{code.lower().replace('_', '-')}",
        "title": _phrase(status),
        "status": status,
        "detail": detail,
        "code": code,
        "errors": [dict(item) for item in errors],
    }
    if instance is not None:
        body["instance"] = instance
    return JSONResponse(body, status_code=status, headers=dict(headers or {}), media_type=PROBLEM_JSON)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def field_errors(problems: Iterable[Problem]) -> list[dict[str, Any]]:
    """Turn the core's problems into the entries of `errors`."""
    return [{"pointer": "", **item.as_dict()} for item in problems]


def from_core(error: CoreError, *, pointer: str = "") -> UnprocessableError:
    """Turn a user's mistake, found by the core, into a 422; `pointer` is put before each place."""
    errors = field_errors(error.problems)
    for item in errors:
        item["pointer"] = pointer + item["pointer"]
    if not errors:
        place = {"pointer": pointer + (error.place or ""), "message": error.message}
        errors = [place if error.value is None else {**place, "value": error.value}]
    # The class's code is the stable one; each entry says more.
    return UnprocessableError(type(error).code, error.message, errors=errors)


def _respond(request: Request, error: ApiError) -> Response:
    return problem(
        error.status,
        error.code,
        error.detail,
        instance=request.url.path,
        errors=error.errors,
        headers=error.headers,
    )


async def _on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return _respond(request, error)


async def _on_core_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, CoreError)
    return _respond(request, from_core(error))


async def _on_book_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, book.BookError)
    return _respond(request, from_book(error))


def from_book(error: book.BookError) -> ApiError:
    """Turn a refusal of a book into an answer."""
    match error:
        case book.NotFound():
            return NotFoundError(error.code, error.message)
        case book.Changed():
            return PreconditionFailedError(error.code, error.message)
        case book.RunExists():
            place = {"pointer": "/on_duplicate", "message": "an identical run exists", "value": error.job_id}
            return ConflictError(error.code, error.message, errors=[place])
        case book.LimitReached():
            return TooManyError(error.code, error.message)
        case book.Conflict() if error.code == "QUOTA_EXCEEDED":
            return TooLargeError(error.code, error.message)
        case book.Conflict():
            return ConflictError(error.code, error.message)
        case book.BadCursor():
            place = {"pointer": "cursor", "message": error.message}
            return UnprocessableError(error.code, error.message, errors=[place])
        case book.StoreUnavailable() if is_full(error.__cause__):
            return StorageFullError("the database's disk is full; nothing of this was kept")
        case book.StoreUnavailable():
            return UnavailableError(error.code, "the database does not answer; try again")
        case _:
            return ApiError("INTERNAL", "the service failed on this request; its log tells more")


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problem(
        error.status_code,
        _HTTP_CODES.get(error.status_code, "REQUEST_REFUSED"),
        _detail(request, error),
        instance=request.url.path,
        headers=error.headers,
    )


def _detail(request: Request, error: HTTPException) -> str:
    if error.status_code == HTTPStatus.NOT_FOUND:
        return f"there is nothing at {request.url.path}"
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return f"{request.method} is not possible here"
    return str(error.detail)


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [_request_error(item) for item in error.errors()]
    first = errors[0]
    detail = f"{len(errors)} problem(s) in the request; {first['pointer'] or 'body'}: {first['message']}"
    return problem(422, "REQUEST_INVALID", detail, instance=request.url.path, errors=errors)


def _request_error(item: Mapping[str, Any]) -> dict[str, Any]:
    place, *rest = item["loc"]
    escaped = [str(part).replace("~", "~0").replace("/", "~1") for part in rest]
    pointer = "".join("/" + part for part in escaped) if place == "body" else "/".join(escaped)
    entry: dict[str, Any] = {"pointer": pointer, "message": str(item["msg"]), "code": item["type"].upper()}
    if item["type"] == "json_invalid":
        entry["pointer"] = ""
        entry["message"] = f"not JSON: {item.get('ctx', {}).get('error', 'cannot be read')}"
    elif item["type"] != "missing" and isinstance(item.get("input"), str | int | float | bool | None):
        entry["value"] = repr(item["input"])[:_VALUE_LIMIT]
    return entry


async def _on_database_error(request: Request, error: Exception) -> Response:
    if is_full(error):
        return _respond(request, StorageFullError("the database's disk is full; nothing of this was kept"))
    log.error("the database failed under %s %s: %s", request.method, request.url.path, error)
    return _respond(
        request, UnavailableError("DATABASE_UNAVAILABLE", "the database does not answer; try again")
    )


async def _on_os_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, OSError)
    if is_full(error):
        return _respond(request, StorageFullError())
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _internal(request)


async def _on_disconnect(_: Request, __: Exception) -> Response:
    # Nobody is left to read it; what counts is that nothing is logged as our failure.
    return Response(status_code=400)


async def _on_anything(request: Request, _: Exception) -> Response:
    return _internal(request)


def _internal(request: Request) -> Response:
    return problem(
        500,
        "INTERNAL",
        "the service failed on this request; its log tells more",
        instance=request.url.path,
    )


def install(app: FastAPI) -> None:
    """Register the handlers, so that no route can answer an error in another shape."""
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(CoreError, _on_core_error)
    app.add_exception_handler(book.BookError, _on_book_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(DBAPIError, _on_database_error)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(OSError, _on_os_error)
    app.add_exception_handler(Exception, _on_anything)
