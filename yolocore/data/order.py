"""How the places of an epoch are cut into batches, and each batch shared out among the ranks.

Pure arithmetic: which picture is at a place, and what is made of it, is settled elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Shares:
    """The batches of an epoch of `count` places, and the contiguous part of each that belongs to one rank.

    `batch_size` is the batch over all ranks. All ranks have equally many places of a batch: the last batch is
    filled up with places past the end of the epoch, which stand for those at its start. `drop_last` leaves
    an incomplete batch out.
    """

    count: int
    batch_size: int
    rank: int = 0
    world_size: int = 1
    drop_last: bool = False

    def __post_init__(self) -> None:
        assert 0 <= self.rank < self.world_size, (self.rank, self.world_size)
        assert self.batch_size % self.world_size == 0, (self.batch_size, self.world_size)

    @property
    def num_batches(self) -> int:
        """How many batches an epoch has, the same for all ranks."""
        whole, rest = divmod(self.count, self.batch_size)
        return whole if self.drop_last or rest == 0 else whole + 1

    def positions(self, index: int) -> range:
        """Return the rank's places of batch `index`; those of all ranks follow one another."""
        first = index * self.batch_size
        share = math.ceil(min(self.batch_size, self.count - first) / self.world_size)
        return range(first + self.rank * share, first + (self.rank + 1) * share)
