"""One claimed import of weights: what its child is told, and how what it made is published.

Publishing goes file, report, row: whoever sees weights that are ready finds all of them. Must not load torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from api.domain.records import Task
from api.domain.weights_records import WeighingResult, WeightsStatus
from worker.child import Limits
from worker.errand import Errand

# What is written may be wider than what was sent, if many tensors share their numbers.
_FILE_FACTOR = 2
_FILE_SPARE_BYTES = 64 << 20


class Weighing(Errand):
    """One attempt at one import, from claim to its end in the book."""

    noun = "import"
    subject = "weights"

    @property
    def _timeout_s(self) -> float:
        return self._tools.settings.weights_timeout_s

    def _order(self) -> dict[str, Any]:
        sha256 = self._task.payload["sha256"]
        return {
            "file": str(self._tools.blobs.path(sha256)),
            "name": self._task.payload["file_name"],
            "sha256": sha256,
        }

    def _limits(self) -> Limits:
        settings = self._tools.settings
        return Limits(
            address_space_bytes=settings.weights_memory_bytes,
            cpu_s=max(1, int(4 * settings.weights_timeout_s)),
            file_bytes=_FILE_FACTOR * settings.max_weights_bytes + _FILE_SPARE_BYTES,
        )

    def _publish(self, result: dict[str, Any]) -> Callable[[], Task]:
        verdict = self._verdict(result)
        return lambda: self._tools.book.finish_weights(self._task.id, self._task.attempt, verdict)

    def _verdict(self, result: dict[str, Any]) -> WeighingResult:
        if result["status"] != "ready":
            report = self._put(self._folder / "report.json")
            return WeighingResult(
                WeightsStatus.INVALID, report.sha256, num_errors=int(result["errors"]), num_warnings=0
            )
        stored = self._put(self._folder / "weights.pt")
        report = self._put(self._folder / "report.json")
        return WeighingResult(
            WeightsStatus.READY,
            report.sha256,
            stored_sha256=stored.sha256,
            stored_bytes=stored.size_bytes,
            architecture_hash=result["architecture_hash"],
            num_classes=result["num_classes"],
            classes=tuple(result["classes"]),
            num_tensors=int(result["num_tensors"]),
            num_parameters=int(result["num_parameters"]),
            num_warnings=int(result["warnings"]),
            provenance=result["provenance"],
        )
