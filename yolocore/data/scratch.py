"""Memory that is used again: a thread's from picture to picture, a batch's once the batch is gone.

Fresh memory costs its first touch, which threads cannot do at the same time. It knows nothing of what is
drawn in it.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence

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


class Slots:
    """Memory of batches, taken back when the last array and tensor made of a batch's own is gone."""

    def __init__(self) -> None:
        self._free: list[ImageArray] = []

    def take(self, shape: Sequence[int]) -> ImageArray:
        """Return an array of a shape with whatever was left in it.

        A tensor made of it keeps it from being given out again; numpy's views of it do not.
        """
        num_bytes = int(np.prod(shape))
        try:
            memory = self._free.pop()
        except IndexError:
            memory = np.empty(num_bytes, dtype=np.uint8)
        if len(memory) < num_bytes:
            memory = np.empty(num_bytes, dtype=np.uint8)
        array = memory[:num_bytes].reshape(shape)
        weakref.finalize(array, self._free.append, memory).atexit = False
        return array
