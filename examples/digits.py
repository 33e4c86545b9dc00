"""Builds a detection dataset of real handwriting from scikit-learn's bundled scanned digits.

Scans are split before any scene is composed, so no scan is in both splits. The archive is a function of its
parameters alone, byte for byte. It knows the YOLO layout and nothing of the service.

    python -m examples.digits digits.zip --seed 0
"""

from __future__ import annotations

import argparse
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_INK_LEVELS = 16
_ZIP_DATE = (2000, 1, 1, 0, 0, 0)
_INK_THRESHOLD = 0.2

FloatImage = NDArray[np.float32]


@dataclass(frozen=True)
class SceneRecipe:
    """What a set of scenes is made of; sizes in pixels, `val_share` of the scans is kept for validation."""

    seed: int = 0
    num_train: int = 320
    num_val: int = 80
    side: int = 160
    min_digits: int = 5
    max_digits: int = 9
    min_scale: float = 2.5
    max_scale: float = 5.0
    noise: float = 8.0
    val_share: float = 0.25


@dataclass(frozen=True)
class Scene:
    """One picture (H, W, 3 uint8) and its rows: class, then centre and size as fractions of the side."""

    image: NDArray[np.uint8]
    rows: list[tuple[int, float, float, float, float]]


def load_scans() -> tuple[FloatImage, NDArray[np.int64]]:
    """Return the 1797 scans as ink from 0 to 1, (n, 8, 8), and the digit each one shows."""
    from sklearn.datasets import load_digits

    bundle = load_digits()
    return (bundle.images / _INK_LEVELS).astype(np.float32), bundle.target.astype(np.int64)


def split_scans(
    classes: NDArray[np.int64], val_share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the scan numbers of train and val, disjoint, with the same share of every digit."""
    rng = np.random.default_rng([seed, 0])
    train, val = [], []
    for digit in range(len(NAMES)):
        numbers = rng.permutation(np.flatnonzero(classes == digit))
        cut = round(len(numbers) * val_share)
        val.append(numbers[:cut])
        train.append(numbers[cut:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(val))


def compose_scene(
    rng: np.random.Generator, scans: FloatImage, classes: NDArray[np.int64], recipe: SceneRecipe
) -> Scene:
    """Place several scans on a noisy sheet, none touching another, and note the box of each one's ink."""
    side = recipe.side
    ink = np.zeros((side, side), np.float32)
    taken = np.zeros((side, side), bool)
    rows = []
    for _ in range(int(rng.integers(recipe.min_digits, recipe.max_digits + 1))):
        number = int(rng.integers(len(scans)))
        glyph = _enlarged(scans[number], float(rng.uniform(recipe.min_scale, recipe.max_scale)))
        height, width = glyph.shape
        for _attempt in range(20):
            top, left = int(rng.integers(side - height + 1)), int(rng.integers(side - width + 1))
            if not taken[top : top + height, left : left + width].any():
                break
        else:
            continue
        taken[top : top + height, left : left + width] = True
        ink[top : top + height, left : left + width] = glyph
        centre_x, centre_y = (left + width / 2) / side, (top + height / 2) / side
        rows.append((int(classes[number]), centre_x, centre_y, width / side, height / side))
    return Scene(_inked(rng, ink, recipe.noise), rows)


def _enlarged(scan: FloatImage, scale: float) -> FloatImage:
    """Enlarge a scan and cut it to its ink, so that its edges are the box."""
    side = round(scan.shape[0] * scale)
    large = np.asarray(Image.fromarray(scan).resize((side, side), Image.Resampling.BICUBIC), np.float32)
    inked = large > _INK_THRESHOLD
    rows, columns = np.flatnonzero(inked.any(1)), np.flatnonzero(inked.any(0))
    return np.clip(large[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], 0, 1)


def _inked(rng: np.random.Generator, ink: FloatImage, noise: float) -> NDArray[np.uint8]:
    """Lay bright ink of one colour on a dark, uneven, noisy sheet."""
    side = ink.shape[0]
    sheet = rng.uniform(20, 90, 3)
    colour = rng.uniform(170, 255, 3)
    coarse = rng.uniform(-20, 20, (5, 5)).astype(np.float32)
    stains = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
    grain = rng.normal(0, noise, (side, side, 3))
    picture = sheet + stains[..., None] + ink[..., None] * (colour - sheet) + grain
    rounded: NDArray[np.uint8] = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return rounded


def build_archive(recipe: SceneRecipe) -> bytes:
    """Return the dataset as a YOLO zip: data.yaml, images/<split>, labels/<split>."""
    scans, classes = load_scans()
    train, val = split_scans(classes, recipe.val_share, recipe.seed)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        listing = "".join(f"  - {name}\n" for name in NAMES)
        _add(archive, "data.yaml", f"train: images/train\nval: images/val\nnames:\n{listing}".encode())
        for stream, split, numbers, count in (
            (1, "train", train, recipe.num_train),
            (2, "val", val, recipe.num_val),
        ):
            for index in range(count):
                rng = np.random.default_rng([recipe.seed, stream, index])
                scene = compose_scene(rng, scans[numbers], classes[numbers], recipe)
                _add(archive, f"images/{split}/{index:04d}.jpg", _jpeg(scene.image))
                _add(archive, f"labels/{split}/{index:04d}.txt", _label_text(scene).encode())
    return buffer.getvalue()


def _jpeg(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def _label_text(scene: Scene) -> str:
    return "".join(f"{cls} " + " ".join(f"{value:.6f}" for value in box) + "\n" for cls, *box in scene.rows)


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    info = zipfile.ZipInfo(name, _ZIP_DATE)
    info.external_attr = 0o644 << 16
    info.compress_type = zipfile.ZIP_STORED if name.endswith(".jpg") else zipfile.ZIP_DEFLATED
    archive.writestr(info, content)


def main() -> None:
    """Write the archive named on the command line."""
    parser = argparse.ArgumentParser(
        description="Write the sample dataset of handwritten digits as a YOLO zip."
    )
    parser.add_argument("archive", type=Path)
    parser.add_argument("--seed", type=int, default=SceneRecipe.seed)
    parser.add_argument("--train", type=int, default=SceneRecipe.num_train, help="training scenes")
    parser.add_argument("--val", type=int, default=SceneRecipe.num_val, help="validation scenes")
    arguments = parser.parse_args()
    recipe = SceneRecipe(seed=arguments.seed, num_train=arguments.train, num_val=arguments.val)
    content = build_archive(recipe)
    arguments.archive.write_bytes(content)
    print(f"{arguments.archive}: {recipe.num_train} + {recipe.num_val} scenes, {len(content)} bytes")


if __name__ == "__main__":
    main()
