"""What can be done with weights: enter a file, tell what its import found, hold it against a network."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from api.access.principal import owner_filter
from api.architectures.service import ArchitectureService, plan_text
from api.domain.blobs import Blob, BlobStore
from api.domain.records import Page, Principal
from api.domain.weights import CreatedWeights, WeightsBook
from api.domain.weights_records import Weights, WeightsStatus
from api.errors import ConflictError, UnprocessableError, UnsupportedMediaError
from api.weights.schemas import FitView
from yolocore.spec.plan import Plan
from yolocore.spec.start import HEAD_BYTES, StartFit, head_problem, match_tensors

_REPORTS_KEPT = 8
_TOLD = 12
# Of no kind that is taken here, as opposed to a kind that is, but old or cut off.
_OTHER_KINDS = frozenset({"CHECKPOINT_LFS_POINTER", "CHECKPOINT_HTML", "CHECKPOINT_FOREIGN"})


def check_head(head: bytes) -> None:
    """Raise UnsupportedMediaError or UnprocessableError for first bytes of what cannot be weights."""
    problem = head_problem(head)
    if problem is None:
        return
    code, message = problem
    place = {"pointer": "", "message": message, "value": repr(head[:16])}
    if code in _OTHER_KINDS:
        raise UnsupportedMediaError(code, message, errors=[place])
    raise UnprocessableError(code, message, errors=[place])


class WeightsService:
    """Weights as one caller may see them."""

    def __init__(self, book: WeightsBook, blobs: BlobStore) -> None:
        self._book = book
        self._blobs = blobs

    def enter(
        self, caller: Principal, name: str, file: Blob, *, file_name: str, max_owner_bytes: int | None = None
    ) -> CreatedWeights:
        """Make weights of a file that is stored; raises Conflict NAME_TAKEN, QUOTA_EXCEEDED."""
        return self._book.create(caller.id, name, file, file_name=file_name, max_owner_bytes=max_owner_bytes)

    def check_stored(self, file: Blob) -> None:
        """Refuse a stored content that cannot be weights, as `check_head`."""
        with self._blobs.open(file.sha256) as content:
            check_head(content.read(HEAD_BYTES))

    def check_name(self, caller: Principal, name: str, *, sha256: str | None, size_bytes: int | None) -> None:
        """Raise Conflict for a name that other bytes have than the ones on their way."""
        self._book.check_name(caller.id, name, sha256=sha256, size_bytes=size_bytes)

    def list(self, caller: Principal, *, limit: int, cursor: str | None) -> Page[Weights]:
        """Return weights, newest first."""
        return self._book.list(owner_filter(caller), limit=limit, cursor=cursor)

    def get(self, caller: Principal, weights_id: str) -> Weights:
        """Return one; raises NotFound."""
        return self._book.get(weights_id, owner_filter(caller))

    def find(self, owner: str, wanted: str) -> Weights:
        """Return an owner's weights that are ready, by id or name; raises NotFound, ConflictError."""
        weights = self._book.find(wanted, owner)
        _check_ready(weights)
        return weights

    def report(self, weights: Weights) -> dict[str, Any] | None:
        """Return what the import found; None while it goes on."""
        if weights.report_sha256 is None:
            return None
        return _read_report(self._blobs.path(weights.report_sha256))

    def delete(self, caller: Principal, weights_id: str) -> None:
        """Remove one; raises NotFound and Conflict."""
        self._book.delete(weights_id, owner_filter(caller))

    def matched(self, weights: Weights, plan: Plan) -> StartFit:
        """Return what a planned network takes from weights that are ready."""
        report = self.report(weights) or {}
        given = {item["name"]: tuple(item["shape"]) for item in report.get("tensors", ())}
        return match_tensors(plan.state_entries, given, not_finite=set(report.get("not_finite", ())))

    def fit(
        self,
        caller: Principal,
        weights_id: str,
        architectures: ArchitectureService,
        *,
        architecture: str,
        num_classes: int | None,
    ) -> FitView:
        """Tell what an architecture takes from weights; raises NotFound, ConflictError, ArchitectureError."""
        weights = self.get(caller, weights_id)
        _check_ready(weights)
        name, text = architectures.named(caller, architecture)
        plan = plan_text(text, source=name, num_classes=num_classes)
        found = self.matched(weights, plan)
        return FitView.model_validate(
            {
                "architecture": name,
                "num_classes": plan.num_classes,
                "usable": found.is_start,
                "taken": list(found.taken),
                "total": found.total,
                "left_out": [item.as_dict() for item in found.left_out],
            }
        )


def check_start(found: StartFit, weights: Weights) -> None:
    """Raise UnprocessableError where a network takes nothing from weights that it should start from."""
    if found.is_start:
        return
    message = "none of the given weights fits this network"
    # What differs says more than what is absent.
    told = sorted(found.left_out, key=lambda item: item.reason not in ("shape", "not finite"))[:_TOLD]
    places = [{"pointer": "/weights", "message": str(item), "value": weights.name} for item in told]
    raise UnprocessableError("WEIGHTS_DO_NOT_FIT", message, errors=places)


def _check_ready(weights: Weights) -> None:
    if weights.status is not WeightsStatus.READY:
        raise ConflictError(
            "WEIGHTS_NOT_READY",
            f"the weights are {weights.status.value}; /v1/weights/{weights.id} tells more",
            errors=[{"pointer": "/weights", "message": f"the weights are {weights.status.value}"}],
        )


@lru_cache(maxsize=_REPORTS_KEPT)
def _read_report(path: Path) -> dict[str, Any]:
    """Read a report; its path names its content, so it never changes."""
    report: dict[str, Any] = json.loads(path.read_bytes())
    return report
