"""One ingest from archive to manifest: the order of the steps, and the files they leave.

The caller gives a folder and reads `result.json` last; nothing here knows where the dataset goes afterwards.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from worker.ingest.collect import blob_path, collect
from worker.ingest.description import describe
from worker.ingest.images import check_all
from worker.ingest.limits import Limits
from worker.ingest.manifest import build_manifest, check_manifest, split_counts
from worker.ingest.report import RefusedError, Report
from worker.ingest.statistics import statistics
from yolocore.errors import DatasetError
from yolocore.spec.dataset import Manifest
from yolocore.spec.imports import ImportOptions

_DEFAULTS = ImportOptions()


def ingest(task_dir: Path) -> dict[str, Any]:
    """Read `task.json` in the folder, leave the dataset or the reasons there, and return the result.

    Writes `images/` (by SHA-256), `manifest.json` and `statistics.json` for a usable dataset, `report.json`
    always, and `result.json` last, each by rename. Raises ValueError for a task that is malformed.
    """
    task = json.loads((task_dir / "task.json").read_text(encoding="utf-8"))
    limits = Limits.from_dict(task.get("limits") or {})
    options = ImportOptions.model_validate(task.get("options") or {})
    return ingest_archive(Path(task["archive"]), task_dir, limits, options)


def ingest_archive(
    archive: Path, folder: Path, limits: Limits, options: ImportOptions = _DEFAULTS
) -> dict[str, Any]:
    """Do one ingest into `folder`; see `ingest`."""
    report = Report()
    manifest: Manifest | None = None
    try:
        manifest = _to_manifest(archive, folder / "images", limits, report, options)
    except RefusedError:
        pass  # the entry that says why is in the report
    except DatasetError as error:
        report.add("error", error.code, error.message, value=error.value)
    status = "invalid" if manifest is None or report.count("error") else "ready"
    result = _result(status, manifest, report)
    if manifest is not None and status == "ready":
        _write(folder / "manifest.json", manifest.canonical_json())
        _write(folder / "statistics.json", _json(statistics(manifest)))
    summary = {key: value for key, value in result.items() if key not in ("v", "status")}
    _write(
        folder / "report.json",
        _json(
            {
                "v": 1,
                "status": status,
                "summary": summary,
                "problems": report.entries(),
                "truncated": report.truncated,
            }
        ),
    )
    _write(folder / "result.json", _json(result))
    return result


def _to_manifest(
    archive: Path, images_root: Path, limits: Limits, report: Report, options: ImportOptions
) -> Manifest | None:
    contents = collect(archive, images_root, limits, report)
    layout = describe(contents, limits, report, options)
    if layout is None:
        return None
    used = {contents.images[name].sha256 for names in layout.splits.values() for name in names}
    for sha256 in {stored.sha256 for stored in contents.images.values()} - used:
        blob_path(images_root, sha256).unlink()
    facts = check_all({sha256: blob_path(images_root, sha256) for sha256 in sorted(used)}, limits)
    manifest = build_manifest(layout, contents, facts, report)
    check_manifest(manifest, layout, contents, report)
    return manifest


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


def _write(path: Path, content: bytes) -> None:
    """Write by rename, so that a reader finds the whole file or none."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
