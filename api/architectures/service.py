"""What can be done with model YAMLs: check, plan and keep them. No torch: the plan is arithmetic."""

from __future__ import annotations

from api.access.principal import owner_filter
from api.architectures.views import DifferenceView
from api.domain.architectures import ArchitectureBook, NewArchitecture
from api.domain.records import Architecture, Dataset, Page, Principal
from api.errors import ConflictError, NotFoundError, TooLargeError, UnprocessableError
from yolocore.spec.advice import DatasetFacts
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.plan import Plan, plan_architecture
from yolocore.spec.studio import difference
from yolocore.spec.zoo import zoo_text


def plan_text(text: str, *, source: str, num_classes: int | None = None, imgsz: int = 640) -> Plan:
    """Parse and plan a model YAML; raises ArchitectureError with line and column of each problem."""
    return plan_architecture(
        parse_architecture(text, source=source), num_classes=num_classes, imgsz=(imgsz, imgsz)
    )


def facts_of(dataset: Dataset) -> DatasetFacts:
    """Return what a model is held against; raises ConflictError while the dataset is not ready."""
    if dataset.statistics is None:
        raise ConflictError("DATASET_NOT_READY", f"the dataset is {dataset.status.value}")
    return DatasetFacts.of_statistics(dataset.num_classes, dataset.statistics)


def difference_view(left: tuple[str, str], right: tuple[str, str], imgsz: int) -> DifferenceView:
    """Compare two (name, text); raises ArchitectureError naming the one at fault."""
    names = left[0], right[0]
    return DifferenceView.of(*names, difference(left[1], right[1], names=names, imgsz=imgsz))


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

    def named(self, caller: Principal, reference: str) -> tuple[str, str]:
        """Return name and text of a kept one by its id, or of a public file by its name; raises NotFound."""
        if reference.startswith("arch_"):
            row = self.get(caller, reference)
            return row.name, row.text
        try:
            return reference, zoo_text(reference)
        except KeyError:
            message = f"no architecture or public model file {reference[:60]!r}"
            raise NotFoundError("ARCHITECTURE_NOT_FOUND", message) from None
