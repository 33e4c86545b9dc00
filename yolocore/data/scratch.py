"""Memory that is used again: a thread's from picture to picture, a batch's once the batch is gone.

Fresh memory costs its first touch, which threads cannot do at the same time. It knows nothing of what is
drawn in it.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from yolocore.data.pixels import ImageArray


class Scratch(threading.local):
    """Arrays by name, of each thread its own; their contents are whatever was left in them.

    The largest one asked for by a name is kept, and smaller ones are parts of it.
    """

    def __init__(self) -> None:
        self._bytes: dict[str, npt.NDArray[np.uint8]] = {}

    def get(self, name: str, hw: tuple[int, int]) -> ImageArray:
        """Return the picture HWC uint8 (height, width, 3) of a name."""
        return self._take(name, hw[0] * hw[1] * 3).reshape(*hw, 3)

    def ints(self, name: str, shape: tuple[int, int]) -> npt.NDArray[np.int32]:
        """Return the int32 array of a name."""
        return self._take(name, shape[0] * shape[1] * 4).view(np.int32).reshape(shape)

    def _take(self, name: str, num_bytes: int) -> npt.NDArray[np.uint8]:
        memory = self._bytes.get(name)
        if memory is None or len(memory) < num_bytes:
            memory = self._bytes[name] = np.empty(num_bytes, dtype=np.uint8)
        return memory[:num_bytes]


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
