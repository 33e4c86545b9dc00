"""What is sent as JSON to make a dataset of an archive that is there already, and how it is read."""

from __future__ import annotations

import json
from typing import Any, Self, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from api.errors import TooLargeError
from yolocore.spec.imports import ImportOptions

NAME_PATTERN = r"^[^\s/\\\x00-\x1f\x7f]([^/\\\x00-\x1f\x7f]*[^\s/\\\x00-\x1f\x7f])?$"
MAX_NAME = 120


class _Order(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DatasetOrder(_Order):
    """A dataset of bytes the service has: an upload in pieces, or a content of the caller's by its digest."""

    name: str = Field(min_length=1, max_length=MAX_NAME, pattern=NAME_PATTERN)
    upload: str | None = Field(None, max_length=48, description="Id of an upload that is finished.")
    sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="Digest of an archive the caller has sent before."
    )
    options: ImportOptions | None = Field(None, description="How the archive is read.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.upload is None) == (self.sha256 is None):
            raise ValueError("give either `upload` or `sha256`")
        return self


class ConfirmOrder(_Order):
    """How to read an archive that was only looked at; without options, as it was looked at."""

    options: ImportOptions | None = None


_M = TypeVar("_M", bound=BaseModel)


def is_order(request: Request) -> bool:
    """Tell whether a request carries an order: JSON, and no name beside it as there is beside an archive."""
    if request.method != "POST" or "name" in request.query_params:
        return False
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


async def read_json(request: Request, kind: type[_M], *, max_bytes: int) -> _M:
    """Read a JSON body of a route whose bodies nobody else bounds.

    Raises TooLargeError, RequestValidationError.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise TooLargeError("CONTENT_TOO_LARGE", f"the body is over {max_bytes} bytes")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        told = {"type": "json_invalid", "loc": ("body",), "msg": "not JSON", "ctx": {"error": str(error)}}
        raise RequestValidationError([told]) from error
    try:
        return kind.model_validate_json(json.dumps(value))
    except ValidationError as error:
        items = [{**item, "loc": ("body", *item["loc"])} for item in error.errors(include_url=False)]
        raise RequestValidationError(items) from error


def inlined(kind: type[BaseModel]) -> dict[str, Any]:
    """Return a model's JSON schema without references, as a hand-written place of OpenAPI needs it."""
    schema = kind.model_json_schema()
    named = schema.pop("$defs", {})

    def resolve(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                name = str(value["$ref"]).rpartition("/")[2]
                return resolve(named[name] | {key: one for key, one in value.items() if key != "$ref"})
            return {key: resolve(one) for key, one in value.items()}
        return [resolve(one) for one in value] if isinstance(value, list) else value

    resolved: dict[str, Any] = resolve(schema)
    return resolved
