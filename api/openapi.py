"""The OpenAPI description as it is told: one error shape for all, credentials where they are needed.

`python -m api.openapi > docs/openapi.json` renews the copy that is kept, so that a change of the interface is
seen where it is made; a test compares the two.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
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


def description() -> dict[str, Any]:
    """Return the description of the application as this code makes it, whatever is set."""
    from api.app import create_app
    from api.domain.settings import Settings

    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Settings(data_dir=Path(folder) / "data"), with_loops=False)
        try:
            return app.openapi()
        finally:
            app.state.services.store.close()


def as_text(described: dict[str, Any]) -> str:
    """Return a description as it is kept: a line for each value, in the order of keys."""
    return json.dumps(described, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(as_text(description()))
