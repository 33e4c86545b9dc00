"""Batches in order from threads: endless over epochs for training, one pass for validation.

Which batch holds what follows from seed, epoch and place alone; threads only decide when it is ready. It
knows nothing of how an item is made or of what the batch is for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from yolocore.data.collate import Batch, Item, apply_quad, collate, draw_quad
from yolocore.data.dataset import TrainSamples, ValSamples
from yolocore.data.draws import epoch_order, generator
from yolocore.data.order import Shares
from yolocore.data.pixels import ImageArray
from yolocore.data.place import MultiScale
from yolocore.data.prefetch import Prefetcher
from yolocore.data.scratch import Slots
from yolocore.data.weights import class_counts, class_weights, image_weights, weighted_order
from yolocore.errors import ConfigError

Finish = Callable[[Batch], Batch]
Order = Callable[[int], npt.NDArray[np.int64]]


class TrainLoader:
    """Training batches, epoch after epoch, the next epoch's first ones prepared while this one ends.

    Nothing is prepared past the last of `num_epochs`, if they are given.

    `epoch(e)` yields the batches of epoch e; the first call for `start_epoch` begins at `start_batch`. The
    order is a permutation keyed by (seed, epoch), or the one of the samples' rectangles; the last batch may
    be smaller. `finish_batch` runs in the threads, last of all. Close it, or use it as a context.

    `batch_size` counts the pictures of all `world_size` ranks; this one gets its contiguous share of each
    batch, made as one process would have made it (see `Shares`). `scales` gives each batch a size of its own
    in `Batch.resized_hw`. `quad` joins fours into pictures of double side and drops an incomplete batch.
    `weigh` draws each epoch's pictures by `set_class_maps`, which must be called first; nothing of the next
    epoch is prepared then. Raises ConfigError if `quad` leaves no batch.
    """

    def __init__(
        self,
        samples: TrainSamples,
        batch_size: int,
        *,
        seed: int,
        num_epochs: int | None = None,
        start_epoch: int = 0,
        start_batch: int = 0,
        num_threads: int = 1,
        finish_batch: Finish | None = None,
        prefetch: int | None = None,
        shuffle: bool = True,
        pin_memory: bool = False,
        scales: MultiScale | None = None,
        quad: bool = False,
        weigh: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        assert not quad or batch_size % (4 * world_size) == 0, "quads need whole fours on every rank"
        assert not weigh or (world_size == 1 and samples.rect is None), "weights need one process, no plan"
        assert samples.rect is None or samples.rect.batch_size == batch_size, "the plan is for other batches"
        self.samples = samples
        self._shares = Shares(len(samples), batch_size, rank, world_size, drop_last=quad)
        self.num_batches = self._shares.num_batches
        if quad and self.num_batches == 0:
            raise ConfigError(
                f"{len(samples)} image(s) do not fill a batch of {batch_size}, and quad leaves out what is "
                "not full",
                place="/batch",
                value=str(batch_size),
            )
        self._seed = seed
        self._num_epochs = num_epochs
        self._start = (start_epoch, start_batch)
        self._finish = finish_batch
        self._pin_memory = pin_memory
        self._scales = scales
        self._quad = quad
        self._weigh = weigh
        self._memory = Slots()
        self._order = None if weigh else _order(samples, seed, shuffle=shuffle)
        depth = prefetch or 2 + num_threads
        self._prefetcher = Prefetcher(self._build, num_threads=num_threads, depth=depth)

    def __len__(self) -> int:
        return self.num_batches

    def epoch(self, epoch: int, start_batch: int | None = None) -> Iterator[Batch]:
        """Yield the batches of an epoch, from `start_batch` on.

        Any epoch and batch may be asked for at any time, earlier ones too, and is the same each time; going
        on where the last one ended costs nothing. Raises what making an item raised, with a note of the
        picture.
        """
        if start_batch is None:
            start_batch = self._start[1] if epoch == self._start[0] else 0
            self._start = (-1, 0)
        first = epoch * self.num_batches
        self._prefetcher.seek(first + start_batch, limit=self._limit(epoch))
        for _ in range(start_batch, self.num_batches):
            yield self._prefetcher.next()

    def batch_at(self, epoch: int, index: int) -> Batch:
        """Make one batch here and now, the same that `epoch` yields, and leave what it yields undisturbed."""
        assert 0 <= index < self.num_batches, (index, self.num_batches)
        return self._build(epoch * self.num_batches + index)

    def set_class_maps(self, class_maps: Sequence[float] | npt.NDArray[np.floating[Any]]) -> None:
        """Draw pictures from now on by these mAP50-95 of each class, (num_classes,); zeros before the first.

        Call it before an epoch with the scores of the validation before it, whether the epoch is begun, gone
        on with or gone back to: they decide its order.
        """
        assert self._weigh, "this loader does not weigh its pictures"
        rows = [sample.rows for sample in self.samples.samples]
        per_class = class_weights(class_counts(rows, len(class_maps)))
        weights = image_weights(rows, per_class, np.asarray(class_maps, dtype=np.float64))
        self._order = lru_cache(maxsize=2)(partial(weighted_order, self._seed, weights=weights))
        self._prefetcher.drop()

    def close(self) -> None:
        """Stop the threads and wait for them."""
        self._prefetcher.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _limit(self, epoch: int) -> int | None:
        """Return the first batch, counted over epochs, that may not be prepared while `epoch` runs."""
        if self._weigh:  # the order of the next is not known yet
            return (epoch + 1) * self.num_batches
        return None if self._num_epochs is None else max(self._num_epochs, epoch + 1) * self.num_batches

    def _build(self, number: int) -> Batch:
        epoch, index = divmod(number, self.num_batches)
        positions = self._shares.positions(index)
        placed = self._slots(positions)
        items = self._items(epoch, positions, placed)
        batch = collate(items, epoch=epoch, index=index, positions=positions, placed=placed)
        if self._quad:
            # The coins are the whole batch's, of which the rank takes those of its fours.
            coins = draw_quad(self._rng(epoch, index, "quad"), self._shares.batch_size // 4)
            first = (positions.start - index * self._shares.batch_size) // 4
            batch = apply_quad(batch, coins[first : first + len(positions) // 4])
        if self._scales is not None:
            size = self._scales.draw(self._rng(epoch, index, "size"))
            batch = replace(batch, resized_hw=self._scales.shape(batch.input_hw, size))
        return _finished(batch, self._finish, self._pin_memory)

    def _slots(self, positions: range) -> ImageArray:
        """Return the memory of a batch, (B, H, W, 3), for its pictures to be drawn into."""
        return self._memory.take((len(positions), *self.samples.shape_hw(positions.start), 3))

    def _items(self, epoch: int, positions: range, slots: ImageArray) -> list[Item]:
        assert self._order is not None, "set_class_maps comes first"
        order = self._order(epoch)
        pool = order if self._weigh else None
        items = []
        for number, position in enumerate(positions):
            picture = int(order[position % len(order)])
            with _Naming(self.samples.samples[picture].name):
                items.append(self.samples.place(slots[number], epoch, position, picture, pool))
        return items

    def _rng(self, epoch: int, index: int, purpose: str) -> np.random.Generator:
        return generator(self._seed, epoch, index, purpose)


class ValLoader:
    """One pass over validation batches each time it is iterated; the same batches every time."""

    def __init__(
        self,
        samples: ValSamples,
        *,
        num_threads: int = 1,
        finish_batch: Finish | None = None,
        prefetch: int | None = None,
        pin_memory: bool = False,
    ) -> None:
        self.samples = samples
        self._finish = finish_batch
        self._pin_memory = pin_memory
        self._num_threads = num_threads
        self._depth = prefetch or 2 + num_threads

    def __len__(self) -> int:
        return self.samples.num_batches

    def __iter__(self) -> Iterator[Batch]:
        prefetcher = Prefetcher(self._build, num_threads=self._num_threads, depth=self._depth)
        try:
            prefetcher.seek(0, limit=len(self))
            for _ in range(len(self)):
                yield prefetcher.next()
        finally:
            prefetcher.close()

    def _build(self, number: int) -> Batch:
        positions = self.samples.positions(number)
        items = [self.samples.item(position) for position in positions]
        batch = collate(items, index=number, positions=positions)
        return _finished(batch, self._finish, self._pin_memory)


class _Naming:
    """Adds the picture's name to whatever is raised inside."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(f"while making the item that begins with {self._name}")


def _order(samples: TrainSamples, seed: int, *, shuffle: bool) -> Order:
    """Return the order of each epoch that depends on nothing but its number."""
    if samples.rect is not None:
        planned = np.array(samples.rect.order, dtype=np.int64)
        return lambda epoch: planned
    return lru_cache(maxsize=4)(partial(epoch_order, seed, count=len(samples), shuffle=shuffle))


def _finished(batch: Batch, finish: Finish | None, pin_memory: bool) -> Batch:
    batch = finish(batch) if finish is not None else batch
    return batch.pin_memory() if pin_memory else batch
