"""Look at pictures and their label files before training: what is usable, and what is wrong with the rest.

A bad picture costs that picture, a bad row costs that row; each is reported with file and line, and nothing
on disk is ever changed. It knows nothing of data.yaml, manifests or augmentation.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image

from yolocore.errors import Problem
from yolocore.spec.labels import LabelRow, parse_label_text

SUFFIXES = frozenset(
    {".bmp", ".dng", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp", ".pfm"},
)
MIN_SIDE_PX = 10
_FORMATS = frozenset({"BMP", "DNG", "JPEG", "MPO", "PNG", "TIFF", "WEBP", "PPM"})
_QUARTER_TURNS = frozenset({5, 6, 7, 8})


@dataclass(frozen=True)
class LabelledImage:
    """A usable picture: its upright size in pixels and the rows of its label file that hold."""

    path: Path
    width: int
    height: int
    rows: list[LabelRow]


@dataclass(frozen=True)
class ScanResult:
    """What a scan found; the counts are of pictures.

    `found` have a label file, `missing` have none, `empty` have one without a row, `corrupt` are unusable.
    """

    images: list[LabelledImage]
    problems: list[Problem]
    found: int
    missing: int
    empty: int
    corrupt: int

    @property
    def total(self) -> int:
        """How many pictures were looked at."""
        return len(self.images) + self.corrupt


def scan_images(paths: Sequence[Path], *, num_classes: int | None = None) -> ScanResult:
    """Check pictures and read their labels, in the given order."""
    images: list[LabelledImage] = []
    problems: list[Problem] = []
    found = missing = empty = 0
    for path in paths:
        size, trouble = check_image(path)
        problems.extend(trouble)
        if size is None:
            continue
        labels = label_path(path)
        if not labels.is_file():
            missing += 1
            images.append(LabelledImage(path, *size, []))
            continue
        found += 1
        rows, wrong = parse_label_text(labels.read_bytes(), num_classes=num_classes)
        problems.extend(
            Problem(item.code, item.message, file=str(labels), line=item.line or None, value=item.value)
            for item in wrong
        )
        empty += not rows and not wrong
        images.append(LabelledImage(path, *size, rows))
    corrupt = len(paths) - len(images)
    return ScanResult(images, problems, found, missing, empty, corrupt)


def label_path(image_path: Path) -> Path:
    """Return where the labels of a picture lie: the last `/images/` becomes `/labels/`, the suffix .txt."""
    before, folder, after = str(image_path).rpartition("/images/")
    moved = f"{before}/labels/{after}" if folder else str(image_path)
    return Path(moved).with_suffix(".txt")


def check_image(path: Path) -> tuple[tuple[int, int] | None, list[Problem]]:
    """Return the upright (width, height) of a picture, None if it is unusable, and what is wrong with it."""

    def problem(code: str, message: str) -> list[Problem]:
        return [Problem(code, message, file=str(path))]

    try:
        data = path.read_bytes()
    except OSError as error:
        return None, problem("IMAGE_MISSING", f"the picture cannot be read: {error.strerror}")
    try:
        kind, width, height = _probe(data)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return None, problem("IMAGE_UNREADABLE", f"not a readable picture: {_reason(error)}")
    if min(width, height) < MIN_SIDE_PX:
        return None, problem("IMAGE_TOO_SMALL", f"{width}x{height}: both sides need {MIN_SIDE_PX} pixels")
    if kind not in _FORMATS:
        return None, problem("IMAGE_FORMAT", f"pictures of format {kind} are not taken")
    if kind == "JPEG" and not ends_properly(data):
        broken = why_undecodable(data)
        if broken:
            return None, problem("IMAGE_TRUNCATED", f"the JPEG is cut off: {broken}")
        return (width, height), problem(
            "IMAGE_TRAILING_BYTES", "bytes follow the JPEG's end; they are ignored"
        )
    return (width, height), []


def ends_properly(data: bytes) -> bool:
    """Tell whether a JPEG's last two bytes are its end marker; true of every other format."""
    return data[:2] != b"\xff\xd8" or data[-2:] == b"\xff\xd9"


def why_undecodable(data: bytes) -> str | None:
    """Decode a picture strictly and return what stops it, None if nothing does."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return _reason(error)
    return None


def _probe(data: bytes) -> tuple[str, int, int]:
    """Return format, and upright width and height, after the checks that need no decoding."""
    with warnings.catch_warnings():
        # Pillow warns of very large pictures and odd metadata; neither makes a picture unusable.
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data)) as image:
            kind, (width, height) = image.format or "unknown", image.size
            image.verify()
        with Image.open(io.BytesIO(data)) as image:  # verifying leaves it unusable
            # Of a TIFF, Pillow already tells the upright size.
            turned = kind != "TIFF" and _orientation(image) in _QUARTER_TURNS
    return kind, *((height, width) if turned else (width, height))


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (OSError, SyntaxError, ValueError, KeyError):
        return 1  # broken metadata; decoders ignore it as well
    return value if isinstance(value, int) else 1


def _reason(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text.replace("<_io.BytesIO object", "<bytes").splitlines()[0][:200]
