"""Shares of batches: every rank has as much, and together they have all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolocore.data.order import Shares


@given(st.integers(0, 50), st.integers(1, 6), st.integers(1, 4), st.booleans())
def test_ranks_have_equal_shares_that_follow_one_another(
    count: int, share: int, world_size: int, drop_last: bool
) -> None:
    size = share * world_size
    ranks = [Shares(count, size, rank, world_size, drop_last) for rank in range(world_size)]
    (num_batches,) = {one.num_batches for one in ranks}
    places: list[int] = []
    for index in range(num_batches):
        ranges = [one.positions(index) for one in ranks]
        assert len({len(one) for one in ranges}) == 1
        assert 1 <= len(ranges[0]) <= share
        places += [position for one in ranges for position in one]
    assert places == list(range(len(places)))
    if drop_last:
        assert len(places) == count // size * size
    else:
        assert count <= len(places) < count + world_size


def test_one_process_has_what_there_is() -> None:
    shares = Shares(10, 4)
    assert [list(shares.positions(index)) for index in range(shares.num_batches)] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9],
    ]


@pytest.mark.parametrize(("batch_size", "rank", "world_size"), [(4, 2, 2), (4, -1, 1), (5, 0, 2)])
def test_what_cannot_be_shared_is_ours_to_prevent(batch_size: int, rank: int, world_size: int) -> None:
    with pytest.raises(AssertionError):
        Shares(8, batch_size, rank, world_size)
