"""Keyed draws: equal keys give equal numbers, any difference gives others."""

from __future__ import annotations

import numpy as np

from yolocore.data.draws import epoch_order, generator


def test_each_part_of_the_key_matters() -> None:
    keys = [(0, 0, 0, "a"), (1, 0, 0, "a"), (0, 1, 0, "a"), (0, 0, 1, "a"), (0, 0, 0, "b")]
    draws = [generator(*key).random(8).tobytes() for key in keys]
    assert len(set(draws)) == len(keys)
    assert draws == [generator(*key).random(8).tobytes() for key in keys]


def test_streams_of_neighbours_do_not_overlap() -> None:
    one = generator(3, 2, 5, "x").random(4000)
    for other in (generator(3, 2, 6, "x"), generator(3, 3, 5, "x"), generator(4, 2, 5, "x")):
        assert not np.isin(other.random(4000), one).any()


def test_an_epoch_is_a_permutation_of_its_own() -> None:
    orders = [epoch_order(7, epoch, 100) for epoch in range(3)]
    for order in orders:
        assert sorted(order) == list(range(100))
    assert not np.array_equal(orders[0], orders[1])
    assert np.array_equal(orders[1], epoch_order(7, 1, 100))
    assert np.array_equal(epoch_order(7, 1, 5, shuffle=False), np.arange(5))
