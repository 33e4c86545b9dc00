"""Makes a picture small: for people as a thumbnail, for comparison as a few grey values.

It sees pixels only, and is called for every picture: what it costs, each upload costs.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

THUMBNAIL_SIDE_PX = 256
# Nine columns give eight differences a line: the 64 bits of a difference hash.
GREY_SIZE = (9, 8)
_QUALITY = 82


def shrunk(pixels: Pixels, side_px: int = THUMBNAIL_SIDE_PX) -> Pixels:
    """Return a picture (h, w, 3) whose longer side is at most `side_px`.

    Whole-number averaging first, which is several times faster than averaging by a fraction, then the rest;
    for that up to factor - 1 rows and columns at the edge are left out.
    """
    height, width = pixels.shape[:2]
    scale = side_px / max(height, width)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    factor = int(1 / scale)
    if factor > 1 and min(height, width) >= factor:
        whole = (width // factor, height // factor)
        cut = pixels[: whole[1] * factor, : whole[0] * factor]
        averaged = cv2.resize(cut, whole, interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(averaged, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def grey_values(pixels: Pixels) -> bytes:
    """Return the picture's mean grey on 8 lines of 9 cells, line by line: 72 bytes."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    return cv2.resize(grey, GREY_SIZE, interpolation=cv2.INTER_AREA).tobytes()


def encoded(pixels: Pixels) -> bytes:
    """Return the picture as JPEG."""
    done, content = cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, _QUALITY))
    assert done, "a decoded picture can be encoded"
    return bytes(content)
