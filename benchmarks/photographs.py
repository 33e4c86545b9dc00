"""The dataset that training is measured on: photographs of blood cells where they lie, else made scenes.

It only knows where they may be found and how many there are in the published split.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import PACKAGE_ROOT
from benchmarks.sample import write_folder
from examples.digits import SceneRecipe

ARCHIVE = "bccd_yolo.zip"
NUM_TRAIN, NUM_VAL = 205, 87
# About the objects of a photograph, larger than what the network sees of it.
_SCENES = SceneRecipe(
    num_train=NUM_TRAIN,
    num_val=NUM_VAL,
    side=640,
    min_digits=10,
    max_digits=18,
    min_scale=8.0,
    max_scale=16.0,
)
_FEW = SceneRecipe(num_train=6, num_val=4, side=160)


@dataclass(frozen=True)
class Photographs:
    """A YOLO folder's `data_yaml`, and in words what it holds."""

    data_yaml: Path
    described: str


def photographs(folder: Path, *, quick: bool) -> Photographs:
    """Put the dataset into a folder, once; `quick` makes a few small scenes."""
    if quick:
        data_yaml = _made(folder / "few", _FEW)
        return Photographs(data_yaml, f"{_FEW.num_train} made scenes of {_FEW.side} pixels")
    archive = Path(os.environ.get("TRAINSHED_DATASETS") or PACKAGE_ROOT.parent / "shared/datasets") / ARCHIVE
    if not archive.is_file():
        described = (
            f"made scenes in place of BCCD ({NUM_TRAIN} train, {NUM_VAL} val of 640x640, 10 to 18 digits)"
        )
        return Photographs(_made(folder / "scenes", _SCENES), described)
    place = folder / "bccd"
    if not place.exists():
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(place)
    data_yaml = min(place.rglob("data.yaml"), key=lambda path: len(path.parts))
    return Photographs(data_yaml, f"BCCD ({NUM_TRAIN} train, {NUM_VAL} val photographs of 640x480)")


def _made(folder: Path, recipe: SceneRecipe) -> Path:
    return folder / "data.yaml" if folder.exists() else write_folder(folder, recipe)
