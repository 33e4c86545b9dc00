"""One claimed ingest: what its child is told, and how what it made is published.

Publishing goes images, manifest, report, row: whoever sees a ready dataset finds all of it. Nothing the child
wrote is believed where it can be checked: contents are hashed again on their way into the blob store.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from api.domain.blobs import Blob
from api.domain.records import DatasetStatus, IngestResult, Task
from worker.child import Limits
from worker.errand import Errand, UntrueResultError
from worker.ladder import read_json
from yolocore.spec.manifest_text import ManifestText

SHOWN_FILES = frozenset({"thumbnails", "page"})


class Intake(Errand):
    """One attempt at one ingest, from claim to its end in the book."""

    noun = "ingest"
    subject = "dataset"

    @property
    def _timeout_s(self) -> float:
        return self._tools.settings.ingest_timeout_s

    def _order(self) -> dict[str, Any]:
        settings = self._tools.settings
        return {
            "archive": str(self._tools.blobs.path(self._task.payload["sha256"])),
            "name": self._task.payload["file_name"],
            "options": self._task.payload.get("options") or {},
            "limits": {
                "max_total_bytes": settings.max_unpacked_bytes,
                "max_entries": settings.max_entries,
                "memory_bytes": settings.ingest_memory_bytes,
            },
        }

    def _limits(self) -> Limits:
        settings = self._tools.settings
        return Limits(
            address_space_bytes=settings.ingest_memory_bytes,
            # Several threads may work at once; the wall clock is watched here.
            cpu_s=max(1, int(4 * settings.ingest_timeout_s)),
            file_bytes=settings.max_unpacked_bytes,
        )

    def _publish(self, result: dict[str, Any]) -> Callable[[], Task]:
        verdict = self._verdict(result)
        return lambda: self._tools.book.finish_ingest(self._task.id, self._task.attempt, verdict)

    def _verdict(self, result: dict[str, Any]) -> IngestResult:
        usable = result["status"] == "ready"
        ready = usable and not result.get("inspected")
        manifest = self._publish_dataset(result["manifest_hash"]) if ready else None
        report = self._put(self._folder / "report.json")
        statistics = read_json(self._folder / "statistics.json") if usable else None
        found = DatasetStatus.READY if ready else DatasetStatus.INSPECTED
        return IngestResult(
            status=found if usable else DatasetStatus.INVALID,
            report_sha256=report.sha256,
            manifest_hash=manifest.sha256 if manifest is not None else None,
            statistics=statistics if isinstance(statistics, dict) else None,
            classes=tuple(result.get("classes", ())),
            splits=result.get("splits", {}),
            num_boxes=int(result.get("num_boxes", 0)),
            num_errors=int(result["errors"]),
            num_warnings=int(result["warnings"]),
            files=self._publish_files(result.get("files")),
        )

    def _publish_files(self, files: object) -> dict[str, str]:
        """Store what is only looked at; return digests by what it is. Raises UntrueResultError."""
        found: dict[str, str] = {}
        for kind, name in files.items() if isinstance(files, dict) else ():
            if kind not in SHOWN_FILES or name is None:
                continue
            path = self._folder / str(name)
            if path.parent != self._folder or path.is_symlink() or not path.is_file():
                raise UntrueResultError(f"there is no {kind} named {str(name)[:80]!r}")
            # Named by the dataset's row alone, so that it goes with it.
            found[kind] = self._tools.blobs.put_file(path).sha256
        return found

    def _publish_dataset(self, manifest_hash: str) -> Blob:
        """Store images, then the manifest; raises UntrueResultError where names and contents disagree."""
        path = self._folder / "manifest.json"
        try:
            with path.open("rb") as file:
                digests = {str(image["sha256"]) for image in ManifestText(file).images()}
        except (ValueError, KeyError) as error:
            raise UntrueResultError(f"manifest {manifest_hash} is none") from error
        for sha256 in sorted(digests):
            if self._tools.blobs.has(sha256):
                continue
            stored = self._tools.blobs.move_file(self._folder / "images" / sha256[:2] / sha256)
            if stored.sha256 != sha256:
                raise UntrueResultError(f"image {sha256} has another content")
        manifest = self._put(path)
        if manifest.sha256 != manifest_hash:
            raise UntrueResultError(f"manifest {manifest_hash} has another content")
        return manifest
