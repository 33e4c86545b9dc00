"""Random draws that depend on what they are for, never on who asked first.

Every draw of a run comes from a generator keyed by (seed, epoch, position in the epoch, purpose), so the
result does not depend on the number of loader threads, and a resumed run draws what the uninterrupted one
would have drawn. It knows nothing of images.
"""

from __future__ import annotations

import threading
import zlib

import numpy as np
import numpy.typing as npt


def generator(seed: int, epoch: int, position: int, purpose: str) -> np.random.Generator:
    """Return the generator of one purpose at one place of a run.

    Philox (Salmon et al., SC'11) is a keyed counter: seed and purpose are the key, epoch and position the
    upper words of the counter, so streams never overlap.
    """
    key = np.array([seed, zlib.crc32(purpose.encode())], dtype=np.uint64)
    counter = np.array([0, position, epoch, 0], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(counter=counter, key=key))


class Generators(threading.local):
    """The same draws from generators that each thread keeps: making one costs far more than a few draws."""

    def __init__(self) -> None:
        self._kept: dict[str, np.random.Generator] = {}

    def at(self, seed: int, epoch: int, position: int, purpose: str) -> np.random.Generator:
        """Return the generator of one purpose as `generator` does, good until that is asked for again."""
        kept = self._kept.get(purpose)
        if kept is None:
            kept = self._kept[purpose] = generator(seed, epoch, position, purpose)
            return kept
        kept.bit_generator.state = {
            "bit_generator": "Philox",
            "state": {"counter": (0, position, epoch, 0), "key": (seed, zlib.crc32(purpose.encode()))},
            "buffer": (0, 0, 0, 0),
            "buffer_pos": 4,
            "has_uint32": 0,
            "uinteger": 0,
        }
        return kept


def epoch_order(seed: int, epoch: int, count: int, *, shuffle: bool = True) -> npt.NDArray[np.int64]:
    """Return the order in which an epoch visits `count` items: a permutation, or 0..count-1."""
    order = np.arange(count, dtype=np.int64)
    if shuffle:
        generator(seed, epoch, 0, "order").shuffle(order)
    return order
