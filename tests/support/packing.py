"""Small archives of pictures and annotations, packed and ingested for the tests of formats."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from worker.ingest.limits import Limits
from worker.ingest.run import ingest_archive
from yolocore.spec.imports import ImportOptions

# What is said of a dataset's numbers, however it was packed; tests of formats look past it.
ADVICE = frozenset(
    {
        "CLASS_IMBALANCE",
        "CLASS_NOT_IN_TRAIN",
        "CLASS_NOT_IN_VAL",
        "CLASS_RARE",
        "CLASS_UNUSED",
        "SMALL_OBJECTS",
        "ANCHORS_MISFIT",
        "FEW_IMAGES",
    }
)


def without_advice(problems: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the problems of the archive, without the advice on the dataset."""
    return [problem for problem in problems if problem["code"] not in ADVICE]


def picture(seed: int, size_wh: tuple[int, int] = (40, 20)) -> bytes:
    """Return a small PNG that differs with the seed."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (size_wh[1], size_wh[0], 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


class Judged:
    """What an ingest left: result, problems, and the manifest of a ready dataset."""

    def __init__(self, folder: Path, result: dict[str, Any]) -> None:
        self.result = result
        self.status: str = result["status"]
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        self.problems = without_advice(report["problems"])
        path = folder / "manifest.json"
        self.manifest: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}

    def codes(self, *severities: str) -> set[str]:
        """Return the codes of the problems of these severities; of all where none is given."""
        return {p["code"] for p in self.problems if not severities or p["severity"] in severities}

    def entry(self, code: str) -> dict[str, Any]:
        """Return the only problem of a code."""
        (found,) = [p for p in self.problems if p["code"] == code]
        return found

    def image(self, name: str) -> dict[str, Any]:
        """Return one picture of the manifest by its name."""
        images: list[dict[str, Any]] = self.manifest["images"]
        (found,) = [image for image in images if image["name"] == name]
        return found

    def names_of(self, split: str) -> list[str]:
        """Return the names of a split's pictures."""
        return [image["name"] for image in self.manifest["images"] if image["split"] == split]

    def edges(self, name: str) -> list[tuple[int, list[float]]]:
        """Return class and edges x1 y1 x2 y2 in pixels of a picture's rows."""
        image = self.image(name)
        w, h = image["width"], image["height"]
        return [
            (
                cls,
                [
                    round(float(v), 4)
                    for v in ((x - bw / 2) * w, (y - bh / 2) * h, (x + bw / 2) * w, (y + bh / 2) * h)
                ],
            )
            for cls, x, y, bw, bh in image["rows"]
        ]


def judge(files: dict[str, bytes], folder: Path, *, limits: Limits | None = None, **options: Any) -> Judged:
    """Zip files and ingest them with these import options."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "up.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    chosen = ImportOptions.model_validate(options)
    return Judged(folder, ingest_archive(folder / "up.zip", folder, limits or Limits(), chosen))
