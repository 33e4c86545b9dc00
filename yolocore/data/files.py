"""Where pictures and labels lie: a manifest with content-addressed images, or a YOLO folder on disk.

Both end as a list of samples, the only thing the rest of the data side sees. Nothing here decodes pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from yolocore.data.geometry import FloatArray
from yolocore.data.scan import SUFFIXES, LabelledImage, scan_images, shown
from yolocore.errors import DatasetError, Problem
from yolocore.spec.data_yaml import DataYaml, parse_data_yaml
from yolocore.spec.dataset import SPLITS, Manifest, ManifestImage, Split
from yolocore.spec.labels import LabelRow

# Pictures that are not read; other files may lie beside pictures for good reasons.
FOREIGN_SUFFIXES = frozenset(
    {".avif", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jxl", ".ppm", ".svg", ".tga"}
)


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture with its labels.

    `name` is what a person calls it, `path` where its bytes are, `content` what identifies those bytes and
    `num_bytes` how many they are; `width`, `height` in pixels, upright. `rows` (n, 5) float32 `class x y w h`
    normalised; `polygons` has an entry a row: points (k, 2) normalised, or None where the row was a box.
    `checked` tells that intake has decoded the picture and accepted it as it is.
    """

    path: Path
    split: str
    width: int
    height: int
    rows: FloatArray
    polygons: tuple[FloatArray | None, ...]
    name: str = ""
    content: str = ""
    num_bytes: int = 0
    checked: bool = False

    @property
    def has_polygons(self) -> bool:
        """Whether any row has an outline."""
        return any(polygon is not None for polygon in self.polygons)


def load_manifest(manifest_path: Path, images_root: Path) -> list[Sample]:
    """Read a manifest whose images lie at `images_root/<sha256[:2]>/<sha256>`.

    Raises DatasetError if the manifest is invalid or an image is missing.
    """
    return manifest_samples(Manifest.parse(manifest_path.read_bytes()), images_root)


def manifest_samples(manifest: Manifest, images_root: Path) -> list[Sample]:
    """Return a manifest's pictures as samples; raises DatasetError if an image is missing."""
    return [_from_manifest(image, images_root) for image in manifest.images]


def scan_yolo_folder(
    data_yaml_path: Path, wanted: Sequence[Split] = SPLITS
) -> tuple[tuple[str, ...], dict[str, list[Sample]], list[Problem]]:
    """Read a data.yaml and the folders it names: class names, samples of each split wanted, what is wrong.

    Relative paths are taken from `path`, which is taken from the file's folder. Raises DatasetError if the
    file itself is invalid, or an entry leads nowhere.
    """
    text = _read_bytes(data_yaml_path)
    data = parse_data_yaml(text, source=data_yaml_path.name)
    splits: dict[str, list[Sample]] = {}
    problems = list(data.notes)
    for split in wanted:
        listed = [path for entry in data.entries(split) for path in _list_entry(data, entry, data_yaml_path)]
        paths = [path for path in listed if path.suffix.lower() in SUFFIXES]
        problems.extend(_left_out(set(listed).difference(paths), split))
        result = scan_images(sorted(set(paths)), num_classes=len(data.names))
        splits[split] = [_from_scan(image, split) for image in result.images]
        problems.extend(result.problems)
    return data.names, splits, problems


def rows_array(rows: Sequence[LabelRow] | Sequence[tuple[float, ...]]) -> FloatArray:
    """Return label rows as a read-only float32 array (n, 5)."""
    numbers = [row.numbers if isinstance(row, LabelRow) else row for row in rows]
    array = np.array(numbers, dtype=np.float32).reshape(-1, 5)
    array.setflags(write=False)
    return array


def as_single_class(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples with every row's class set to 0."""
    result = []
    for sample in samples:
        rows = sample.rows.copy()
        rows[:, 0] = 0
        rows.setflags(write=False)
        result.append(replace(sample, rows=rows))
    return result


def sizes_px(samples: Sequence[Sample], imgsz: int) -> FloatArray:
    """Return width and height (n, 2) of all labels in pixels, pictures having a longer side of `imgsz`."""
    sizes = [np.zeros((0, 2), np.float32)]
    for sample in samples:
        longer = max(sample.width, sample.height)
        scale = np.array([sample.width / longer * imgsz, sample.height / longer * imgsz], np.float32)
        sizes.append(sample.rows[:, 3:5] * scale)
    return np.concatenate(sizes)


def fingerprint(samples: Iterable[Sample]) -> str:
    """Return a hash of what would be learned from these samples in this order, the same on every machine.

    Pictures count by their content where intake has hashed it, else by file name and size: a folder that
    moved, or was copied, is still the same data.
    """
    digest = hashlib.sha256()
    for sample in samples:
        picture = sample.content if sample.checked else f"{sample.path.name}:{sample.num_bytes}"
        outlines = [None if line is None else line.tobytes().hex() for line in sample.polygons]
        parts = (sample.split, picture, sample.width, sample.height, sample.rows.tobytes().hex(), outlines)
        digest.update(repr(parts).encode(errors="surrogateescape"))
    return digest.hexdigest()


def _from_manifest(image: ManifestImage, images_root: Path) -> Sample:
    path = images_root / image.sha256[:2] / image.sha256
    if not path.is_file():
        raise DatasetError(
            f"the image {image.name} ({image.sha256[:12]}) is missing", code="IMAGE_MISSING", place=image.name
        )
    outlines = image.polygons or [None] * len(image.rows)
    return Sample(
        path=path,
        split=image.split,
        width=image.width,
        height=image.height,
        rows=rows_array(image.rows),
        polygons=tuple(None if line is None else np.array(line, dtype=np.float32) for line in outlines),
        name=image.name,
        content=image.sha256,
        num_bytes=image.bytes,
        checked=True,
    )


def _from_scan(image: LabelledImage, split: str) -> Sample:
    status = image.path.stat()
    return Sample(
        path=image.path,
        split=split,
        width=image.width,
        height=image.height,
        rows=rows_array(image.rows),
        polygons=tuple(
            None if row.polygon is None else np.array(row.polygon, dtype=np.float32) for row in image.rows
        ),
        name=shown(image.path),
        content=f"{image.path.resolve()}:{status.st_size}:{status.st_mtime_ns}",
        num_bytes=status.st_size,
    )


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(
            f"{shown(path)} cannot be read: {error.strerror}", code="FILE_MISSING", place=shown(path)
        ) from error


def _list_entry(data: DataYaml, entry: str, data_yaml_path: Path) -> list[Path]:
    """Return the pictures of one entry of data.yaml: a folder, searched recursively, or a list file."""
    base = data_yaml_path.resolve().parent / data.path
    place = base / entry
    if entry.startswith("../") and not _exists(place):
        place = base / entry.removeprefix("../")
    if _exists(place) and place.is_dir():
        suffixes = SUFFIXES | FOREIGN_SUFFIXES
        return [path for path in place.rglob("*") if path.suffix.lower() in suffixes and path.is_file()]
    if _exists(place) and place.is_file() and place.suffix.lower() == ".txt":
        lines = (line.strip() for line in _list_text(place).splitlines())
        return [place.parent / line.removeprefix("./") for line in lines if line]
    raise DatasetError(
        f"{data_yaml_path.name}: {entry!r} is neither a folder nor a list file under {shown(base)}",
        code="DATA_PATH",
        place=data_yaml_path.name,
        value=entry,
    )


def _left_out(paths: set[Path], split: str) -> list[Problem]:
    """Return one problem for all pictures whose suffix says that nobody here reads them."""
    if not paths:
        return []
    suffixes = ", ".join(sorted({path.suffix.lower() or "none" for path in paths})[:10])
    text = f"{len(paths)} file(s) of the split {split} are left out for their suffix ({suffixes}); the first"
    return [Problem("IMAGE_FORMAT", text, file=shown(min(paths)))]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long for any file
        return False


def _list_text(path: Path) -> str:
    data = _read_bytes(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DatasetError(
            f"{shown(path)}:{line}: the list of pictures is not UTF-8 text",
            code="DATA_ENCODING",
            place=f"{shown(path)}:{line}",
            value=f"byte {error.start}",
        ) from error
