"""Judges pictures: the header before anything is decoded, then a whole decode as training will do it.

It sees bytes and returns sizes or a reason, and from the same decode a small copy and some grey values; the
names, labels and splits are none of its business.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from PIL import Image

from worker.ingest.limits import Limits
from worker.ingest.shrink import encoded, grey_values, shrunk

# Explicit, because Pillow would otherwise offer every reader it has to a stranger's bytes.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")
_LARGE_PIXELS = 16_000_000
_CHUNK = 512
_ORIENTATION = 0x0112
_large = threading.Lock()

Remark = tuple[str, str]
"""Code and message."""


class Keeper(Protocol):
    """Where small copies go."""

    def put(self, content: bytes) -> tuple[int, int]:
        """Keep bytes and return their place."""
        ...


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """A picture's upright size in pixels, or why it cannot be used; `note` and `remarks` are harmless.

    `format` is that of the content; `grey` 8 x 9 grey values; `thumbnail` the place of the small copy.
    """

    width: int = 0
    height: int = 0
    problem: Remark | None = None
    note: Remark | None = None
    remarks: tuple[Remark, ...] = ()
    format: str = ""
    grey: bytes = b""
    thumbnail: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class _Header:
    width: int
    height: int
    frames: int
    format: str
    remarks: tuple[Remark, ...]


def check_all(
    paths: Mapping[str, Path], limits: Limits, keeper: Keeper | None = None
) -> dict[str, ImageFacts]:
    """Check the pictures behind each key, a few at a time; the result has the same keys.

    Small copies go to the `keeper`, if there is one. Memory holds a few pictures, however many there are.
    """
    facts: dict[str, ImageFacts] = {}
    rest: Iterator[tuple[str, Path]] = iter(paths.items())
    # Pillow warns about broken EXIF blocks and large pictures; neither says that the pixels are unusable.
    with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=limits.threads) as pool:
        warnings.simplefilter("ignore")
        while chunk := list(islice(rest, _CHUNK)):
            results = pool.map(lambda item: _check(item[1], limits, keeper), chunk)
            facts.update(zip((key for key, _ in chunk), results, strict=True))
    return facts


def _check(path: Path, limits: Limits, keeper: Keeper | None) -> ImageFacts:
    """Read the header, refuse what is too large or too small, then decode the whole picture."""
    size = path.stat().st_size
    if size == 0:
        return ImageFacts(problem=("IMAGE_EMPTY", "the file is empty"))
    if size > limits.max_image_bytes:
        return ImageFacts(problem=("IMAGE_TOO_LARGE", f"the file has {size} bytes"))
    header = _header(path)
    if isinstance(header, ImageFacts):
        return header
    width, height = header.width, header.height
    if width * height > limits.max_image_pixels:
        text = f"{width} x {height} pixels, more than {limits.max_image_pixels // 1_000_000} megapixels"
        return ImageFacts(problem=("IMAGE_TOO_LARGE", text))
    if min(width, height) < limits.min_image_side:
        text = f"{width} x {height} pixels; both sides need at least {limits.min_image_side}"
        return ImageFacts(problem=("IMAGE_TOO_SMALL", text))
    if width * height <= _LARGE_PIXELS:
        return _decoded(path, header, keeper)
    # One at a time: a picture at the limit takes over half a gigabyte.
    with _large:
        return _decoded(path, header, keeper)


def _header(path: Path) -> _Header | ImageFacts:
    try:
        with Image.open(path, formats=_FORMATS) as picture:
            frames = int(getattr(picture, "n_frames", 1))
            return _Header(*picture.size, frames, str(picture.format), tuple(_remarks(picture)))
    except (
        OSError,
        ValueError,
        SyntaxError,
        TypeError,
        KeyError,
        EOFError,
        Image.DecompressionBombError,
    ) as error:
        return ImageFacts(problem=("IMAGE_UNREADABLE", f"not a readable picture: {type(error).__name__}"))


def _remarks(picture: Image.Image) -> Iterator[Remark]:
    """Yield what training will do to the picture that its owner may not expect."""
    if picture.mode == "CMYK":
        yield "IMAGE_CMYK", "CMYK colours are converted to RGB and may look different"
    if picture.mode.startswith("I;16") or any("16" in str(tile[3]) for tile in getattr(picture, "tile", ())):
        yield "IMAGE_16_BIT", "16 bits a channel are reduced to 8"
    if _orientation(picture) > 1:
        yield "IMAGE_ROTATED", "stored turned and shown upright by EXIF: boxes must fit the upright picture"


def _orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation, 1 for upright, without decoding anything."""
    if "exif" not in picture.info:
        return 1
    try:
        value = picture.getexif().get(_ORIENTATION, 1)
    except (OSError, ValueError, SyntaxError, TypeError, KeyError, EOFError):
        return 1  # a broken block turns nothing
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _decoded(path: Path, header: _Header, keeper: Keeper | None) -> ImageFacts:
    data = np.fromfile(path, np.uint8)
    try:
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except (cv2.error, MemoryError):
        decoded = None
    if decoded is None:
        return ImageFacts(
            problem=("IMAGE_DAMAGED", "the picture is damaged or cut off and cannot be decoded")
        )
    frames, note = header.frames, None
    if frames > 1:
        note = ("IMAGE_FIRST_FRAME", f"{frames} frames or pages; only the first is used")
    height, width = decoded.shape[:2]
    small = shrunk(np.asarray(decoded, np.uint8))
    return ImageFacts(
        width=int(width),
        height=int(height),
        note=note,
        remarks=header.remarks,
        format=header.format,
        grey=grey_values(small),
        thumbnail=None if keeper is None else keeper.put(encoded(small)),
    )
