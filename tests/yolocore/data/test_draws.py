"""Keyed draws: equal keys give equal numbers, any difference gives others."""

from __future__ import annotations

import numpy as np

from yolocore.data.draws import Generators, epoch_order, generator


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


def test_kept_generators_draw_what_new_ones_draw() -> None:
    kept = Generators()
    for key in [(0, 0, 0, "a"), (2**40, 3, 70000, "b"), (0, 0, 1, "a"), (0, 0, 0, "a"), (5, 2**33, 9, "b")]:
        one, other = kept.at(*key), generator(*key)
        for _ in range(2):  # halves of words and shuffles leave something behind, which must be forgotten
            assert one.integers(0, 100, dtype=np.uint32) == other.integers(0, 100, dtype=np.uint32)
            np.testing.assert_array_equal(one.permutation(7), other.permutation(7))
            np.testing.assert_array_equal(one.uniform(-1, 1, size=9), other.uniform(-1, 1, size=9))
            assert one.beta(32, 32) == other.beta(32, 32)
