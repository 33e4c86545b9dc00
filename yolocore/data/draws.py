"""Random draws that depend on what they are for, never on who asked first.

Every draw of a run comes from a generator keyed by (seed, epoch, position in the epoch, purpose), so the
result does not depend on the number of loader threads, and a resumed run draws what the uninterrupted one
would have drawn. It knows nothing of images.
"""

from __future__ import annotations

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


def epoch_order(seed: int, epoch: int, count: int, *, shuffle: bool = True) -> npt.NDArray[np.int64]:
    """Return the order in which an epoch visits `count` items: a permutation, or 0..count-1."""
    order = np.arange(count, dtype=np.int64)
    if shuffle:
        generator(seed, epoch, 0, "order").shuffle(order)
    return order
