"""Look at pictures and their label files before training: what is usable, and what is wrong with the rest.

A bad picture costs that picture, a bad row costs that row; each is reported with file and line, and nothing
on disk is ever changed. It knows nothing of data.yaml, manifests or augmentation.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image, UnidentifiedImageError

from yolocore.data.pixels import decode
from yolocore.errors import Problem
from yolocore.spec.labels import MAX_LABEL_BYTES, LabelRow, parse_label_text

SUFFIXES = frozenset(
    {".bmp", ".dng", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp", ".pfm"},
)
MIN_SIDE_PX = 10
MAX_PIXELS = 178_000_000
MAX_BYTES = 1 << 30
_FORMATS = frozenset({"BMP", "DNG", "JPEG", "MPO", "PNG", "TIFF", "WEBP", "PPM"})
# Of the others, only decoding tells whether they are cut off or hold pixels that training cannot take.
_TOLD_BY_HEADER = frozenset({"JPEG", "MPO", "PNG", "WEBP"})
# What Pillow's readers raise at bytes that are not what they seem.
_UNREADABLE = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, RuntimeError),
    *(struct.error, Image.DecompressionBombError),
)
_QUARTER_TURNS = frozenset({5, 6, 7, 8})


class Unusable(Exception):  # noqa: N818 - a finding about one picture, no failure of the program
    """A picture that cannot be used, and why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


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
        rows, wrong = _read_labels(labels, num_classes)
        problems.extend(wrong)
        if rows is None:
            continue
        empty += not rows and not wrong
        images.append(LabelledImage(path, *size, rows))
    corrupt = len(paths) - len(images)
    return ScanResult(images, problems, found, missing, empty, corrupt)


def _read_labels(path: Path, num_classes: int | None) -> tuple[list[LabelRow] | None, list[Problem]]:
    """Return the rows that hold and what is wrong; None where the whole file cannot be read.

    A picture without its labels would be learned as background, so it goes with them.
    """
    try:
        if path.stat().st_size > MAX_LABEL_BYTES:
            text = f"the file is larger than {MAX_LABEL_BYTES >> 20} MiB; its picture is left out"
            return None, [Problem("LABEL_TOO_LARGE", text, file=shown(path))]
        rows, wrong = parse_label_text(path.read_bytes(), num_classes=num_classes)
    except OSError as error:
        text = f"the file cannot be read: {_reason(error)}; its picture is left out"
        return None, [Problem("LABEL_UNREADABLE", text, file=shown(path))]
    foreign = any(item.code == "LABEL_ENCODING" for item in wrong)
    return None if foreign else rows, [
        Problem(
            item.code,
            f"{item.message}; its picture is left out" if foreign else item.message,
            file=shown(path),
            line=item.line or None,
            value=item.value or None,
        )
        for item in wrong
    ]


def label_path(image_path: Path) -> Path:
    """Return where the labels of a picture lie: the last `/images/` becomes `/labels/`, the suffix .txt."""
    before, folder, after = str(image_path).rpartition("/images/")
    moved = f"{before}/labels/{after}" if folder else str(image_path)
    return Path(moved).with_suffix(".txt")


def check_image(path: Path) -> tuple[tuple[int, int] | None, list[Problem]]:
    """Return the upright (width, height) of a picture, None if it is unusable, and what is wrong with it."""
    try:
        size, found = _judge(_read(path))
    except Unusable as error:
        size, found = None, [(error.code, error.message)]
    return size, [Problem(code, message, file=shown(path)) for code, message in found]


def shown(path: Path) -> str:
    """Return a path as text that can be stored and sent: what is no UTF-8 in it is written as bytes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def too_large(data: bytes) -> str | None:
    """Return why a picture must not be decoded, from its header alone; None if it may.

    A few bytes may claim gigabytes of pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                width, height = image.size
    except Image.DecompressionBombError as error:
        return _reason(error)
    except _UNREADABLE:
        return None  # whoever decodes it will say what it is
    if width * height <= MAX_PIXELS:
        return None
    return f"{width}x{height} pixels, more than {MAX_PIXELS // 1_000_000} megapixels"


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
    except _UNREADABLE as error:
        return _reason(error)
    return None


def _read(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
            raise Unusable("IMAGE_MISSING", "the picture cannot be read: not a file")
        if status.st_size > MAX_BYTES:
            raise Unusable("IMAGE_TOO_LARGE", f"the file has {status.st_size} bytes")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise Unusable("IMAGE_MISSING", f"the picture cannot be read: {_reason(error)}") from error


def _judge(data: bytes) -> tuple[tuple[int, int], list[tuple[str, str]]]:
    """Return the upright size and harmless remarks as (code, message); raises Unusable."""
    if not data:
        raise Unusable("IMAGE_UNREADABLE", "the file is empty")
    large = too_large(data)
    if large:
        raise Unusable("IMAGE_TOO_LARGE", large)
    try:
        kind, width, height, frames = _header(data)
    except _UNREADABLE as error:
        raise Unusable("IMAGE_UNREADABLE", f"not a readable picture: {_reason(error)}") from error
    if min(width, height) < MIN_SIDE_PX:
        raise Unusable("IMAGE_TOO_SMALL", f"{width}x{height}: both sides need {MIN_SIDE_PX} pixels")
    if kind not in _FORMATS:
        raise Unusable("IMAGE_FORMAT", f"pictures of format {kind} are not taken")
    remarks = _remarks(data, kind, frames)
    if kind not in _TOLD_BY_HEADER:
        _decode_once(data, (width, height))
    return (width, height), remarks


def _remarks(data: bytes, kind: str, frames: int) -> list[tuple[str, str]]:
    """Return what is odd about a picture but harmless; raises Unusable where it is not."""
    remarks = []
    if not ends_properly(data):
        broken = why_undecodable(data)
        if broken:
            raise Unusable("IMAGE_TRUNCATED", f"the JPEG is cut off: {broken}")
        remarks.append(("IMAGE_TRAILING_BYTES", "bytes follow the JPEG's end; they are ignored"))
    if frames > 1 and kind != "MPO":  # the second picture of a camera's MPO is a preview or the other eye
        remarks.append(("IMAGE_FIRST_FRAME", f"{frames} frames or pages; only the first is used"))
    return remarks


def _decode_once(data: bytes, size: tuple[int, int]) -> None:
    """Raise Unusable where training would not get the picture that the header tells of."""
    image = decode(data)
    if image is None:
        why = why_undecodable(data) or "its kind of pixels is not taken"
        raise Unusable("IMAGE_UNREADABLE", f"not a readable picture: {why}")
    height, width = image.shape[:2]
    if (width, height) != size:
        raise Unusable("IMAGE_UNREADABLE", f"it is decoded as {width}x{height}, its header says {size}")


def _header(data: bytes) -> tuple[str, int, int, int]:
    """Return format, upright width and height in pixels, and number of frames, without decoding."""
    with warnings.catch_warnings():
        # Pillow warns of very large pictures and odd metadata; neither makes a picture unusable.
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data)) as image:
            kind, (width, height) = image.format or "unknown", image.size
            frames = int(getattr(image, "n_frames", 1))
            image.verify()
        with Image.open(io.BytesIO(data)) as image:  # verifying leaves it unusable
            # Of a TIFF, Pillow already tells the upright size.
            turned = kind != "TIFF" and _orientation(image) in _QUARTER_TURNS
    return kind, *((height, width) if turned else (width, height)), frames


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _UNREADABLE:
        return 1  # broken metadata; decoders ignore it as well
    return value if isinstance(value, int) else 1


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "its format is not known"  # Pillow's own words name an address in memory
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return text.splitlines()[0][:200]
