"""The samples the figures are taken with: scenes of scanned digits, as an archive or as a folder."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from examples.digits import SceneRecipe, build_archive

MODEL = Path(__file__).resolve().parent.parent / "examples" / "digits.yaml"


def write_archive(path: Path, *, num_train: int, num_val: int) -> None:
    """Write scenes of 160 pixels as a YOLO zip."""
    path.write_bytes(build_archive(SceneRecipe(num_train=num_train, num_val=num_val)))


def write_folder(folder: Path, recipe: SceneRecipe) -> Path:
    """Unpack scenes into a YOLO folder and return its data.yaml."""
    with zipfile.ZipFile(io.BytesIO(build_archive(recipe))) as archive:
        archive.extractall(folder)
    return folder / "data.yaml"
