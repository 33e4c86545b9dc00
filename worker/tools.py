"""Programs for children that need the whole core: `python -m worker.tools import-weights FOLDER`.

Reads what somebody sent, as inert data, and leaves a verdict in the folder: result.json, report.json, and for
weights that can be used weights.pt, the project's own format. It holds no address of the service; what is
heavy is imported only for files that were not refused before. Nothing imports it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import sys
import threading
import traceback
from collections import Counter
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolocore.errors import CheckpointError
from yolocore.weights.archive import Archive
from yolocore.weights.pickled import load

if TYPE_CHECKING:
    from torch import Tensor

    from yolocore.weights.read import ForeignWeights

EXIT_DONE, EXIT_DATA, EXIT_USAGE, EXIT_INTERNAL, EXIT_DISK = 0, 65, 64, 70, 74
FORMAT = "trainshed-weights-1"
REPORT_VERSION = 1
MAX_TEXT = 400
MAX_TOLD = 20
MAX_METADATA = 40
MAX_CLASSES = 10_000


def watch_lifeline() -> None:
    """End the process as soon as the pipe on standard input ends, which means that the parent is gone."""
    if not stat.S_ISFIFO(os.fstat(0).st_mode):
        return

    def wait() -> None:
        while os.read(0, 4096):
            pass
        os._exit(EXIT_INTERNAL)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def main(arguments: list[str]) -> int:
    """Run one tool; return 0 for usable weights, 65 for a file that is refused, else the kind of failure."""
    if len(arguments) != 2 or arguments[0] != "import-weights":
        print("usage: python -m worker.tools import-weights FOLDER", file=sys.stderr)
        return EXIT_USAGE
    watch_lifeline()
    folder = Path(arguments[1]).resolve()
    try:
        task = json.loads((folder / "task.json").read_bytes())
        return import_weights(folder, Path(task["file"]), task["name"], task["sha256"])
    except OSError as error:
        traceback.print_exc()
        return EXIT_DISK if error.errno in (errno.ENOSPC, errno.EDQUOT) else EXIT_INTERNAL
    except Exception:  # noqa: BLE001 (top of a process)
        traceback.print_exc()
        return EXIT_INTERNAL


def import_weights(folder: Path, file: Path, name: str, sha256: str) -> int:
    """Write the verdict on a file into a folder; return 0 or 65. Raises OSError."""
    size_bytes = file.stat().st_size  # one that is gone is no fault of whoever sent it
    try:
        given = read(file)
        provenance = provenance_of(given, name=name, sha256=sha256, size_bytes=size_bytes)
        write_safely(folder / "weights.pt", given, provenance)
    except CheckpointError as error:
        return _leave(folder, *refused(error, name, own_name=file.name))
    return _leave(folder, *accepted(given, provenance))


def read(file: Path) -> ForeignWeights:
    """Read a file of weights; raises CheckpointError, also where it takes more memory than there may be."""
    try:
        with closing(Archive(file)) as archive:
            load(archive.pickle(), archive.check_storage)
        from yolocore.weights.read import read_weights

        return read_weights(file)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        raise CheckpointError(
            "the checkpoint takes more memory than an import may have", code="CHECKPOINT_TOO_LARGE"
        ) from error


def provenance_of(given: ForeignWeights, *, name: str, sha256: str, size_bytes: int) -> dict[str, Any]:
    """Return where weights come from: the file as it was sent, and what it says of itself."""
    metadata = {
        key[:MAX_TEXT]: value[:MAX_TEXT] if isinstance(value, str) else value
        for key, value in list(given.metadata.items())[:MAX_METADATA]
        if not isinstance(value, float) or value == value and abs(value) != float("inf")
    }
    date = given.metadata.get("date")
    return {
        "file_name": name,
        "sha256": sha256,
        "size_bytes": size_bytes,
        "entry": given.entry or None,
        "epoch": given.epoch,
        "date": date[:MAX_TEXT] if isinstance(date, str) else None,
        "metadata": metadata,
        "importer": f"trainshed {version('trainshed')}",
    }


def write_safely(path: Path, given: ForeignWeights, provenance: dict[str, Any]) -> None:
    """Write tensors and plain values in the project's own format, readable with `weights_only=True`."""
    import torch

    anchors = given.anchors
    content = {
        "format": FORMAT,
        "model": {key: narrowed(tensor) for key, tensor in given.tensors.items()},
        "metrics": None,
        "names": list(given.names),
        "strides": list(given.strides),
        "anchors_px": anchors.tolist() if anchors is not None and bool(torch.isfinite(anchors).all()) else [],
        "architecture": architecture_text(given),
        "architecture_name": _text(given.metadata.get("architecture_name")),
        "imgsz": _number(given.metadata.get("imgsz")),
        "provenance": json.dumps(provenance),
    }
    torch.save(content, path)


def narrowed(tensor: Tensor) -> Tensor:
    """Return numbers in half precision where that loses nothing, as published ones are; else as they are."""
    import torch

    if not tensor.is_floating_point():
        return tensor
    half = tensor.half()
    return half if torch.equal(half.float().nan_to_num(), tensor.nan_to_num()) else tensor


def architecture_text(given: ForeignWeights) -> str | None:
    """Return the model YAML that our own files carry; None for others."""
    return _text(given.metadata.get("architecture")) if given.metadata.get("format") == FORMAT else None


def accepted(given: ForeignWeights, provenance: dict[str, Any]) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Return exit code, result and report of weights that can be used."""
    tensors = [
        {"name": key, "shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
        for key, tensor in given.tensors.items()
    ]
    problems = _remarks(given)
    text = architecture_text(given)
    report = {
        "v": REPORT_VERSION,
        "problems": problems,
        "tensors": tensors,
        "not_finite": list(given.not_finite),
        "strides": list(given.strides),
        "anchors_px": given.anchors.nan_to_num().tolist() if given.anchors is not None else None,
        "architecture": text,
        "yaml": given.yaml,
        "provenance": provenance,
    }
    result = {
        "status": "ready",
        "architecture_hash": None if text is None else hashlib.sha256(text.encode()).hexdigest(),
        "num_classes": given.num_classes if 0 < (given.num_classes or 0) <= MAX_CLASSES else None,
        "classes": list(given.names[:MAX_CLASSES]),
        "num_tensors": len(tensors),
        "num_parameters": sum(tensor.numel() for tensor in given.tensors.values()),
        "provenance": provenance,
    }
    return EXIT_DONE, result, report


def refused(
    error: CheckpointError, name: str, *, own_name: str
) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Return exit code, result and report of a file that cannot be used; `own_name` it has among contents."""
    place = None if error.place in (None, own_name) else str(error.place)[:MAX_TEXT]
    problem = _problem("error", error.code, error.message, name, place=place, value=error.value)
    return EXIT_DATA, {"status": "invalid"}, {"v": REPORT_VERSION, "problems": [problem], "tensors": []}


def _remarks(given: ForeignWeights) -> list[dict[str, Any]]:
    problems = []
    bad = given.not_finite
    if bad:
        message = f"{len(bad)} tensors hold NaN or infinity; no training starts from them"
        named = ", ".join(bad[:MAX_TOLD])
        problems.append(_problem("warning", "WEIGHTS_NOT_FINITE", message, None, place=named))
    if not given.names and given.num_classes is None:
        message = "the file names no classes: bare tensors, or weights of something else"
        problems.append(_problem("info", "WEIGHTS_WITHOUT_CLASSES", message, None))
    return problems


def _problem(
    severity: str,
    code: str,
    message: str,
    file: str | None,
    *,
    place: str | None = None,
    value: str | None = None,
) -> dict[str, Any]:
    told = None if value is None else str(value)[:MAX_TEXT]
    return {
        "severity": severity,
        "code": code,
        "message": message[:MAX_TEXT],
        "file": file,
        "place": place,
        "value": told,
    }


def _leave(folder: Path, code: int, result: dict[str, Any], report: dict[str, Any]) -> int:
    counts = Counter(problem["severity"] for problem in report["problems"])
    result |= {"v": REPORT_VERSION, "errors": counts["error"], "warnings": counts["warning"]}
    for name, value in (("report.json", report), ("result.json", result)):
        text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False)
        (folder / name).write_text(text, encoding="utf-8", errors="replace")
    return code


def _finite(value: Any) -> Any:
    """Return plain values with NaN and infinity, which JSON has no words for, as None."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> int | None:
    return value if type(value) is int else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
