"""Arrays that each loader thread keeps from picture to picture, so that none is allocated for a picture.

What lies in one is worth something only until the same thread asks for it again. It knows nothing of what is
drawn in it.
"""

from __future__ import annotations

import threading

import numpy as np

from yolocore.data.pixels import ImageArray


class Scratch(threading.local):
    """Pictures HWC uint8 by name, of each thread its own; their contents are whatever was left in them."""

    def __init__(self) -> None:
        self._arrays: dict[str, ImageArray] = {}

    def get(self, name: str, hw: tuple[int, int]) -> ImageArray:
        """Return the array (height, width, 3) of a name."""
        array = self._arrays.get(name)
        if array is None or array.shape[:2] != hw:
            array = self._arrays[name] = np.empty((*hw, 3), dtype=np.uint8)
        return array
