"""Serve the pages: index.html, our modules under /assets, installed packages under /npm.

Everything comes from this origin and no script runs that is not a file here; the one inline block, the
import map, is allowed by its hash. It must not know what the pages do.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Receive, Scope, Send

from api.errors import NotFoundError

PAGES_DIR = Path(__file__).parent
_INLINE = re.compile(r"<script type=\"importmap\">(.*?)</script>", re.DOTALL)
_SERVED = frozenset({".js", ".mjs", ".css", ".svg", ".png", ".woff2", ".json", ".map"})


def content_policy(page: str) -> str:
    """Return the Content-Security-Policy of a page: this origin only, and its import map by hash."""
    digests = [
        base64.b64encode(hashlib.sha256(block.encode()).digest()).decode() for block in _INLINE.findall(page)
    ]
    scripts = " ".join(["'self'", *(f"'sha256-{digest}'" for digest in digests)])
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {scripts}",
            "style-src 'self'",
            "img-src 'self' data: blob:",
            "font-src 'self'",
            "connect-src 'self'",
            "manifest-src 'self'",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        ]
    )


class Modules(StaticFiles):
    """Files of a folder, but only of kinds a page loads, and nothing that is hidden."""

    def __init__(self, folder: Path, *, hidden: frozenset[str]) -> None:
        super().__init__(directory=folder, check_dir=False)
        self._hidden = hidden

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Serve one file; anything hidden is a 404 like what is not there."""
        parts = Path(path).parts
        shown = not any(part.startswith(".") or part in self._hidden for part in parts)
        if not shown or Path(path).suffix not in _SERVED:
            raise HTTPException(404)
        return await super().get_response(path, scope)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def revalidated(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault("Cache-Control", "no-cache")
            await send(message)

        await super().__call__(scope, receive, revalidated)


@dataclass(frozen=True)
class Pages:
    """The folder of the pages."""

    folder: Path

    async def index(self, _: Request) -> Response:
        """Serve the one page; the routes behind the # are its own."""
        try:
            page = (self.folder / "index.html").read_text("utf-8")
        except FileNotFoundError as error:
            raise NotFoundError("DASHBOARD_ABSENT", "this installation has no dashboard") from error
        headers = {"Content-Security-Policy": content_policy(page), "Cache-Control": "no-cache"}
        return HTMLResponse(page, headers=headers)


def mount_dashboard(app: FastAPI, folder: Path = PAGES_DIR) -> None:
    """Add the dashboard's routes to the application."""
    hidden = frozenset({"node_modules", "tests", "package.json", "package-lock.json", "tsconfig.json"})
    app.add_route("/", Pages(folder).index, methods=["GET"], include_in_schema=False)
    app.mount("/assets", Modules(folder, hidden=hidden), name="assets")
    app.mount("/npm", Modules(folder / "node_modules", hidden=frozenset()), name="npm")
