"""What can be done with model YAMLs: check, plan and keep them. No torch: the plan is arithmetic."""

from __future__ import annotations

from typing import Any

from api.access.principal import owner_filter
from api.domain.architectures import ArchitectureBook, NewArchitecture
from api.domain.records import Architecture, Page, Principal
from api.errors import TooLargeError, UnprocessableError
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.plan import Plan, plan_architecture


def plan_text(text: str, *, source: str, num_classes: int | None = None, imgsz: int = 640) -> Plan:
    """Parse and plan a model YAML; raises ArchitectureError with line and column of each problem."""
    return plan_architecture(
        parse_architecture(text, source=source), num_classes=num_classes, imgsz=(imgsz, imgsz)
    )


class ArchitectureService:
    """Architectures as one caller may see them."""

    def __init__(self, book: ArchitectureBook, *, max_bytes: int) -> None:
        self._book = book
        self._max_bytes = max_bytes

    def read_text(self, body: bytes) -> str:
        """Decode a body; raises TooLargeError and UnprocessableError."""
        if len(body) > self._max_bytes:
            raise TooLargeError("CONTENT_TOO_LARGE", f"a model YAML may have {self._max_bytes} bytes at most")
        try:
            return body.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            before = body[: error.start]
            place = {
                "pointer": "",
                "message": "not UTF-8",
                "line": before.count(b"\n") + 1,
                "value": repr(body[error.start : error.start + 8]),
            }
            raise UnprocessableError(
                "ARCHITECTURE_INVALID", "the body is not UTF-8 text", errors=[place]
            ) from error

    def create(self, caller: Principal, name: str, text: str) -> tuple[Architecture, bool]:
        """Keep a model YAML; returns it and whether it is new. Raises ArchitectureError and Conflict."""
        plan = plan_text(text, source=name)
        new = NewArchitecture(
            owner=caller.id,
            name=name,
            text=text,
            num_parameters=plan.num_parameters,
            gflops=plan.gflops,
            strides=[float(stride) for stride in plan.strides],
            num_classes=plan.num_classes,
            summary=plan.summary(),
        )
        return self._book.create(new)

    def list(self, caller: Principal, *, limit: int, cursor: str | None) -> Page[Architecture]:
        """Return architectures, newest first."""
        return self._book.list(owner_filter(caller), limit=limit, cursor=cursor)

    def get(self, caller: Principal, architecture_id: str) -> Architecture:
        """Return one; raises NotFound."""
        return self._book.get(architecture_id, owner_filter(caller))

    def plan(
        self, caller: Principal, architecture_id: str, *, num_classes: int | None, imgsz: int
    ) -> dict[str, Any]:
        """Return the plan of a kept one for other classes or sizes; raises ArchitectureError."""
        row = self.get(caller, architecture_id)
        return plan_text(row.text, source=row.name, num_classes=num_classes, imgsz=imgsz).summary()
