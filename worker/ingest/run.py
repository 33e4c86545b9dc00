"""One ingest from archive to manifest: the order of the steps, and the files they leave.

The caller gives a folder and reads `result.json` last; nothing here knows where the dataset goes afterwards.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from worker.ingest.advice import advise
from worker.ingest.collect import Contents, blob_path, collect
from worker.ingest.description import describe
from worker.ingest.images import ImageFacts, check_all
from worker.ingest.likeness import report_likeness
from worker.ingest.limits import Limits
from worker.ingest.manifest import build_manifest, check_manifest, split_counts
from worker.ingest.page import PageContents, make_page
from worker.ingest.remarks import report_remarks
from worker.ingest.report import RefusedError, Report
from worker.ingest.statistics import statistics
from worker.ingest.thumbnails import MAX_THUMBNAILS, Spool, Thumbnails
from yolocore.errors import DatasetError
from yolocore.spec.dataset import Manifest
from yolocore.spec.imports import ImportOptions

_DEFAULTS = ImportOptions()
_THUMBNAILS, _PAGE = "thumbnails.zip", "report.html"


def ingest(task_dir: Path) -> dict[str, Any]:
    """Read `task.json` in the folder, leave the dataset or the reasons there, and return the result.

    Writes `images/` (by SHA-256), `manifest.json`, `statistics.json` and `thumbnails.zip` for a usable
    dataset, `report.json` and `report.html` always, and `result.json` last, each by rename. A task that only
    inspects leaves no `images/` and no manifest. Raises ValueError for a task that is malformed.
    """
    task = json.loads((task_dir / "task.json").read_text(encoding="utf-8"))
    limits = Limits.from_dict(task.get("limits") or {})
    archive = Path(task["archive"])
    try:
        options = ImportOptions.model_validate(task.get("options") or {})
    except ValidationError as error:
        raise ValueError(f"options: {error}") from error
    return ingest_archive(archive, task_dir, limits, options, title=str(task.get("name") or archive.name))


def ingest_archive(
    archive: Path,
    folder: Path,
    limits: Limits,
    options: ImportOptions = _DEFAULTS,
    *,
    title: str | None = None,
) -> dict[str, Any]:
    """Do one ingest into `folder`; see `ingest`. `title` heads the page."""
    with Spool(folder / "thumbnails.spool") as spool:
        work = _Work(folder, limits, options, Report(), spool)
        result = work.run(archive, title or archive.name)
    _write(folder / "result.json", [_json(result)])
    return result


@dataclass
class _Work:
    """What the steps of one ingest share, and what they have found so far."""

    folder: Path
    limits: Limits
    options: ImportOptions
    report: Report
    spool: Spool
    facts: dict[str, ImageFacts] = field(default_factory=dict)
    drawn: bool = True

    def run(self, archive: Path, title: str) -> dict[str, Any]:
        """Judge the archive, write all files but the result, and return that."""
        manifest: Manifest | None = None
        try:
            manifest = self._to_manifest(archive)
        except RefusedError:
            pass  # the entry that says why is in the report
        except DatasetError as error:
            self.report.add("error", error.code, error.message, value=error.value)
        if manifest is None or self.report.count("error"):
            result = _result("invalid", manifest, self.report)
            page = PageContents(title, result, self.report.entries())
            files: dict[str, str | None] = {"thumbnails": None}
        else:
            result, page, files = self._understand(manifest, title)
        if self.options.inspect:
            result["inspected"] = True
            shutil.rmtree(self.folder / "images", ignore_errors=True)
        self._write_report(result)
        _write(self.folder / _PAGE, [make_page(page).encode()])
        return result | {"files": files | {"page": _PAGE}}

    def _to_manifest(self, archive: Path) -> Manifest | None:
        images_root = self.folder / "images"
        contents = collect(archive, images_root, self.limits, self.report)
        layout = describe(contents, self.limits, self.report, self.options)
        if layout is None:
            return None
        names = [name for split in layout.splits.values() for name in split]
        self.facts = self._check(contents, names, images_root)
        manifest = build_manifest(layout, contents, self.facts, self.report)
        check_manifest(manifest, layout, contents, self.report)
        return manifest

    def _check(self, contents: Contents, names: list[str], images_root: Path) -> dict[str, ImageFacts]:
        """Decode the pictures of the splits once each; the others are removed."""
        used = {contents.images[name].sha256 for name in names}
        for sha256 in {stored.sha256 for stored in contents.images.values()} - used:
            blob_path(images_root, sha256).unlink()
        self.drawn = len(names) <= MAX_THUMBNAILS
        if not self.drawn:
            text = f"more than {MAX_THUMBNAILS} pictures: no thumbnails are made"
            self.report.add("info", "THUMBNAILS_LEFT_OUT", text, value=len(names))
        paths = {sha256: blob_path(images_root, sha256) for sha256 in sorted(used)}
        return check_all(paths, self.limits, self.spool if self.drawn else None)

    def _understand(
        self, manifest: Manifest, title: str
    ) -> tuple[dict[str, Any], PageContents, dict[str, str | None]]:
        """Count, compare, advise and draw a usable dataset; return result, page and files."""
        report_remarks(manifest, self.facts, self.report)
        report_likeness(manifest, self.facts, self.report)
        counted = statistics(manifest, self.options.imgsz)
        advise(counted, self.report)
        result = _result("ready", manifest, self.report)
        if not self.options.inspect:
            _write(self.folder / "manifest.json", manifest.canonical_chunks())
        _write(self.folder / "statistics.json", [_json(counted)])
        thumbnails = Thumbnails(manifest, self.facts, self.spool)
        if self.drawn:
            thumbnails.write(self.folder / _THUMBNAILS)
        page = PageContents(title, result, self.report.entries(), counted, manifest.images, thumbnails.get)
        return result, page, {"thumbnails": _THUMBNAILS if self.drawn else None}

    def _write_report(self, result: dict[str, Any]) -> None:
        summary = {key: value for key, value in result.items() if key not in ("v", "status")}
        written = {
            "v": 1,
            "status": result["status"],
            "summary": summary,
            "problems": self.report.entries(),
            "truncated": self.report.truncated,
        }
        _write(self.folder / "report.json", [_json(written)])


def _result(status: str, manifest: Manifest | None, report: Report) -> dict[str, Any]:
    errors, warnings = report.count("error"), report.count("warning")
    result: dict[str, Any] = {
        "v": 1,
        "status": status,
        "problems": errors + warnings,
        "errors": errors,
        "warnings": warnings,
    }
    if manifest is not None:
        result |= {
            "manifest_hash": manifest.manifest_hash() if status == "ready" else None,
            "num_classes": len(manifest.names),
            "classes": list(manifest.names),
            "splits": split_counts(manifest),
            "num_images": len(manifest.images),
            "num_boxes": sum(len(image.rows) for image in manifest.images),
        }
    return result


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _write(path: Path, chunks: Iterable[bytes]) -> None:
    """Write by rename, so that a reader finds the whole file or none."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        file.writelines(chunks)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
