"""Memory that is used again: never two holders of the same, and none allocated where some is free."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import torch

from yolocore.data.scratch import Scratch, Slots


def test_each_thread_has_its_own() -> None:
    scratch, barrier = Scratch(), Barrier(3)

    def own(number: int) -> bool:
        array = scratch.get("a", (4, 5))
        array.fill(number)
        barrier.wait(timeout=60)
        return bool((scratch.get("a", (4, 5)) == number).all())

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(own, range(3)))
    assert np.shares_memory(scratch.get("a", (4, 5)), scratch.get("a", (2, 3)))
    assert not np.shares_memory(scratch.get("b", (4, 5)), scratch.get("a", (4, 5)))
    assert scratch.get("a", (6, 5)).shape == (6, 5, 3)
    assert scratch.ints("a", (2, 3)).shape == (2, 3)


def test_a_batch_keeps_its_memory_and_gives_it_back() -> None:
    slots = Slots()
    one = torch.from_numpy(slots.take((2, 3, 4, 3))).permute(0, 3, 1, 2)
    other = slots.take((1, 3, 4, 3))
    one.fill_(1)
    other.fill(2)
    assert (one == 1).all()
    place, view = one.data_ptr(), one[1:]
    del one
    assert slots.take((2, 3, 4, 3)).ctypes.data != place  # a part of the batch is still there
    assert (view == 1).all()
    del view
    places = {array.ctypes.data for array in [slots.take((2, 3, 4, 3)), slots.take((2, 3, 4, 3))]}
    assert place in places
    larger = slots.take((5, 3, 4, 3))
    assert larger.shape == (5, 3, 4, 3)
    assert larger.dtype == np.uint8
