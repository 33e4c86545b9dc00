"""Keeps a small copy of every picture while it is decoded, and draws the boxes on it once they are known.

Boxes may be known only after a picture's size is, and pictures are decoded once: so the small ones wait in a
file. It sees pixels, rows and positions; it judges nothing and knows no names.
"""

from __future__ import annotations

import os
import threading
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np

from worker.ingest.images import ImageFacts
from worker.ingest.shrink import encoded
from yolocore.spec.dataset import Manifest

MAX_THUMBNAILS = 200_000
# Okabe and Ito's colours without black, as BGR: told apart by colour-blind people too.
PALETTE_BGR = (
    (0, 159, 230),
    (233, 180, 86),
    (115, 158, 0),
    (66, 228, 240),
    (178, 114, 0),
    (0, 94, 213),
    (167, 121, 204),
)
Row = tuple[int, float, float, float, float]
"""Class, then centre and size, normalised."""
_DATE = (1980, 1, 1, 0, 0, 0)


class Spool:
    """A file of small JPEGs, written by several threads and read by place; removed when left."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("w+b")
        self._end = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def put(self, content: bytes) -> tuple[int, int]:
        """Append bytes and return their place: offset and length. Raises OSError on a full disk."""
        with self._lock:
            place = (self._end, len(content))
            self._file.write(content)
            self._end += len(content)
        return place

    def get(self, place: tuple[int, int]) -> bytes:
        """Return the bytes of a place."""
        with self._lock:
            self._file.flush()
        return os.pread(self._file.fileno(), place[1], place[0])


def draw(jpeg: bytes, rows: Iterable[Row]) -> bytes:
    """Return the JPEG with one thin rectangle a row, in its class's colour."""
    boxes = list(rows)
    if not boxes:
        return jpeg
    pixels = np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), np.uint8)
    height, width = pixels.shape[:2]
    for cls, x, y, w, h in boxes:
        left, right = ((x + sign * w / 2) * width for sign in (-1, 1))
        top, bottom = ((y + sign * h / 2) * height for sign in (-1, 1))
        corners = [(int(left), int(top)), (min(int(right), width - 1), min(int(bottom), height - 1))]
        cv2.rectangle(pixels, corners[0], corners[1], PALETTE_BGR[cls % len(PALETTE_BGR)], 1)
    return encoded(pixels)


class Thumbnails:
    """The drawn pictures of a manifest, by their position in it."""

    def __init__(self, manifest: Manifest, facts: Mapping[str, ImageFacts], spool: Spool) -> None:
        self._images = manifest.images
        self._facts = facts
        self._spool = spool

    def get(self, position: int) -> bytes | None:
        """Return one JPEG with its boxes; None where there is none."""
        image = self._images[position]
        place = self._facts[image.sha256].thumbnail
        return None if place is None else draw(self._spool.get(place), image.rows)

    def write(self, path: Path) -> None:
        """Write all as members `000000.jpg` of one uncompressed zip, by rename; raises OSError."""
        temporary = path.with_name(path.name + ".part")
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for position in range(len(self._images)):
                content = self.get(position)
                if content is not None:
                    # A fixed date: equal datasets give equal files.
                    archive.writestr(zipfile.ZipInfo(f"{position:06}.jpg", _DATE), content)
        temporary.replace(path)
