"""The OpenAPI description as it is told: one error shape for all, credentials where they are needed."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.errors import PROBLEM_JSON, ProblemBody

_REF = {"$ref": "#/components/schemas/ProblemBody"}
_PROBLEM = {"description": "What is wrong, and where.", "content": {PROBLEM_JSON: {"schema": _REF}}}
_UNUSED = ("HTTPValidationError", "ValidationError")
_METHODS = frozenset({"get", "put", "post", "delete", "patch", "head", "options"})


class DescribedApp(FastAPI):
    """An application whose description is mended."""

    def openapi(self) -> dict[str, Any]:
        """Return the description, made at the first call."""
        if self.openapi_schema is None:
            schema = get_openapi(
                title=self.title, version=self.version, description=self.description, routes=self.routes
            )
            _mend(schema)
            self.openapi_schema = schema
        return self.openapi_schema


def _mend(schema: dict[str, Any]) -> None:
    components = schema.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in _UNUSED:
        schemas.pop(name, None)
    body = ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(body.pop("$defs", {}))
    schemas["ProblemBody"] = body
    components["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer"},
        "session": {"type": "apiKey", "in": "cookie", "name": "trainshed_session"},
    }
    for path, item in schema["paths"].items():
        for method, operation in item.items():
            if method in _METHODS:
                _mend_operation(path, method, operation)


def _mend_operation(path: str, method: str, operation: dict[str, Any]) -> None:
    operation["responses"].pop("422", None)
    operation["responses"]["default"] = _PROBLEM
    if path.startswith("/v1/") and (path, method) != ("/v1/session", "post"):
        operation["security"] = [{"token": []}, {"session": []}]
