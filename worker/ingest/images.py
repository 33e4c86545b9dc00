"""Judges pictures: the header before anything is decoded, then a whole decode as training will do it.

It sees bytes and returns sizes or a reason; names, labels and splits are none of its business.
"""

from __future__ import annotations

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from worker.ingest.limits import Limits

# Explicit, because Pillow would otherwise offer every reader it has to a stranger's bytes.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")
_LARGE_PIXELS = 16_000_000
_large = threading.Lock()


@dataclass(frozen=True)
class ImageFacts:
    """A picture's upright size in pixels, or why it cannot be used; `note` is a harmless remark."""

    width: int = 0
    height: int = 0
    problem: tuple[str, str] | None = None
    note: tuple[str, str] | None = None


def check_all(paths: dict[str, Path], limits: Limits) -> dict[str, ImageFacts]:
    """Check the pictures behind each key, a few at a time; the result has the same keys."""
    with ThreadPoolExecutor(max_workers=limits.threads) as pool:
        results = pool.map(lambda path: check(path, limits), paths.values())
        return dict(zip(paths, results, strict=True))


def check(path: Path, limits: Limits) -> ImageFacts:
    """Read the header, refuse what is too large or too small, then decode the whole picture."""
    size = path.stat().st_size
    if size == 0:
        return ImageFacts(problem=("IMAGE_EMPTY", "the file is empty"))
    if size > limits.max_image_bytes:
        return ImageFacts(problem=("IMAGE_TOO_LARGE", f"the file has {size} bytes"))
    header = _header(path)
    if isinstance(header, ImageFacts):
        return header
    width, height, frames = header
    if width * height > limits.max_image_pixels:
        text = f"{width} x {height} pixels, more than {limits.max_image_pixels // 1_000_000} megapixels"
        return ImageFacts(problem=("IMAGE_TOO_LARGE", text))
    if min(width, height) < limits.min_image_side:
        text = f"{width} x {height} pixels; both sides need at least {limits.min_image_side}"
        return ImageFacts(problem=("IMAGE_TOO_SMALL", text))
    note = ("IMAGE_FIRST_FRAME", f"{frames} frames or pages; only the first is used") if frames > 1 else None
    return _decoded(path, large=width * height > _LARGE_PIXELS, note=note)


def _header(path: Path) -> tuple[int, int, int] | ImageFacts:
    try:
        # Pillow warns about broken EXIF blocks and large pictures; neither says that the pixels are unusable.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_FORMATS) as picture:
                return (*picture.size, int(getattr(picture, "n_frames", 1)))
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


def _decoded(path: Path, *, large: bool, note: tuple[str, str] | None) -> ImageFacts:
    data = np.fromfile(path, np.uint8)
    try:
        if large:
            # One at a time: a picture at the limit takes over half a gigabyte.
            with _large:
                pixels = cv2.imdecode(data, cv2.IMREAD_COLOR)
        else:
            pixels = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except (cv2.error, MemoryError):
        pixels = None
    if pixels is None:
        return ImageFacts(
            problem=("IMAGE_DAMAGED", "the picture is damaged or cut off and cannot be decoded")
        )
    height, width = pixels.shape[:2]
    return ImageFacts(width=int(width), height=int(height), note=note)
