"""Read pictures and hand them out resized, from the file or from one packed, read-only cache.

A cache holds resized uint8 pixels, is keyed by the pictures' content and the size, and is published whole or
not at all. Nothing here ever returns a writable view of it. It knows nothing of labels or augmentation.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2

from yolocore.data.cache import CacheKind, Progress, choose_cache, pack_in_memory, pack_on_disk, packed_bytes
from yolocore.data.files import Sample
from yolocore.data.pixels import ImageArray, as_image, decode
from yolocore.data.scan import ends_properly, shown, too_large, why_undecodable
from yolocore.errors import DatasetError, DiskFullError


def read_image(path: Path, name: str | None = None, *, strict: bool = True) -> ImageArray:
    """Decode a picture to BGR, HWC uint8, turned upright; any format becomes three 8-bit channels.

    Raises DatasetError naming the file (or `name`) if it is missing or no picture; with `strict` also if it
    is too large, or a JPEG that was cut off.
    """
    name = name or shown(path)
    return _decoded(_read_bytes(path, name), name, strict=strict)


def _read_bytes(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DatasetError(f"{name} cannot be read: {reason}", code="IMAGE_MISSING", place=name) from error


def _decoded(data: bytes, name: str, *, strict: bool) -> ImageArray:
    large = too_large(data) if strict else None
    if large:
        raise DatasetError(f"{name} is too large: {large}", code="IMAGE_TOO_LARGE", place=name)
    if not ends_properly(data):
        broken = why_undecodable(data) if strict else None
        if broken:
            raise DatasetError(f"{name} is cut off: {broken}", code="IMAGE_TRUNCATED", place=name)
        data += b"\xff\xd9"  # decoding from memory needs the end marker; what is missing becomes grey
    image = decode(data)
    if image is None:
        reason = why_undecodable(data) or "its kind of pixels is not taken"
        raise DatasetError(f"{name} is not a readable picture: {reason}", code="IMAGE_UNREADABLE", place=name)
    return image


def resized_hw(hw: tuple[int, int], imgsz: int) -> tuple[int, int]:
    """Return (height, width) after scaling the longer side to `imgsz`.

    Both sides are rounded up and, other than in YOLOv5, never exceed `imgsz` through floating point.
    """
    ratio = imgsz / max(hw)
    if ratio == 1:
        return hw
    height, width = (min(math.ceil(side * ratio), imgsz) for side in hw)
    return height, width


def resize_image(image: ImageArray, imgsz: int, *, area: bool) -> ImageArray:
    """Resize a picture to `resized_hw`; linear, or by area where it shrinks and `area` asks for it."""
    hw = (image.shape[0], image.shape[1])
    height, width = resized_hw(hw, imgsz)
    if (height, width) == hw:
        return image
    shrinks = imgsz / max(hw) < 1
    interpolation = cv2.INTER_AREA if area and shrinks else cv2.INTER_LINEAR
    return as_image(cv2.resize(image, (width, height), interpolation=interpolation))


class ImageStore:
    """The pictures of some samples, resized to `imgsz`, by number.

    `area` selects area interpolation for shrinking (validation); training uses linear. `cache` is what is
    asked for; `cache_kind` what it came to after measuring what fits, each step down told to `warn`.
    `progress` is called with (done, total) while a cache is filled and may raise to stop it.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        imgsz: int,
        *,
        area: bool = False,
        cache: CacheKind = "none",
        cache_dir: Path | None = None,
        num_threads: int = 1,
        warn: Callable[[str], None] = lambda message: None,
        progress: Progress = lambda done, total: None,
    ) -> None:
        self.samples = samples
        self.imgsz = imgsz
        self.area = area
        self.shapes_hw = [resized_hw((sample.height, sample.width), imgsz) for sample in samples]
        self.size_bytes = packed_bytes(self.shapes_hw)
        path = cache_dir / f"{self.content_key()}.pack" if cache_dir and cache != "none" else None
        self.cache_kind = choose_cache(cache, self.size_bytes, path, warn)
        self._pack: list[ImageArray] | None = None
        if self.cache_kind == "ram":
            self._pack = pack_in_memory(self.shapes_hw, self.load, num_threads=num_threads, progress=progress)
        elif self.cache_kind == "disk" and path is not None:
            try:
                self._pack = pack_on_disk(
                    self.shapes_hw, self.load, path, num_threads=num_threads, progress=progress
                )
            except DiskFullError as error:  # a cache is only for speed; others may have filled the disk since
                warn(f"{error.message}; pictures are decoded each time")
                self.cache_kind = "none"

    def __len__(self) -> int:
        return len(self.samples)

    def content_key(self) -> str:
        """Return a hash of all that decides the resized pixels: contents, sizes, interpolation, OpenCV."""
        digest = hashlib.sha256(f"1 {cv2.__version__} {self.imgsz} {self.area}".encode())
        for sample, (height, width) in zip(self.samples, self.shapes_hw, strict=True):
            digest.update(
                f"\n{sample.content or sample.path} {height} {width}".encode(errors="surrogateescape")
            )
        return digest.hexdigest()[:32]

    def get(self, index: int) -> ImageArray:
        """Return picture `index` resized, BGR, HWC uint8, read-only."""
        if self._pack is not None:
            return self._pack[index]
        image = self.load(index)
        image.setflags(write=False)
        return image

    def load(self, index: int) -> ImageArray:
        """Decode and resize picture `index` from its file.

        Raises DatasetError also if its bytes or pixels are not as many as recorded: labels depend on them.
        """
        sample = self.samples[index]
        name = sample.name or shown(sample.path)
        data = _read_bytes(sample.path, name)
        if sample.num_bytes not in (0, len(data)):
            raise DatasetError(
                f"{name} has {len(data)} bytes, had {sample.num_bytes} when it was checked; "
                "a dataset must not change while it is used",
                code="IMAGE_CHANGED",
                place=name,
            )
        image = _decoded(data, name, strict=not sample.checked)
        if image.shape[:2] != (sample.height, sample.width):
            raise DatasetError(
                f"{name} is {image.shape[1]}x{image.shape[0]}, recorded as {sample.width}x{sample.height}",
                code="IMAGE_SIZE",
                place=name,
            )
        return resize_image(image, self.imgsz, area=self.area)
