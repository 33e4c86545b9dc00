"""Batches in order from threads: endless over epochs for training, one pass for validation.

OpenCV releases the interpreter lock, so threads scale and nothing is pickled. Which batch holds what follows
from seed, epoch and place alone; threads only decide when it is ready. It knows nothing of how an item is
made or of what the batch is for.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache, partial
from types import TracebackType
from typing import Self

from yolocore.data.collate import Batch, Item, collate
from yolocore.data.dataset import TrainSamples, ValSamples
from yolocore.data.draws import epoch_order

Finish = Callable[[Batch], Batch]


class Prefetcher:
    """Runs build(number) for rising numbers in threads and hands the results out in that order.

    At most `depth` results wait or are under way. An exception comes out where its result would have; with
    no threads everything runs in the caller's.
    """

    def __init__(self, build: Callable[[int], Batch], *, num_threads: int, depth: int) -> None:
        self._build = build
        self._depth = depth
        self._executor = (
            ThreadPoolExecutor(num_threads, thread_name_prefix="loader") if num_threads > 0 else None
        )
        self._waiting: deque[Future[Batch]] = deque()
        self._next = 0
        self._submitted = 0
        self._limit: int | None = None

    def seek(self, number: int, limit: int | None = None) -> None:
        """Go on with `number`, dropping what was prepared for other places; nothing is built from `limit`."""
        self._limit = limit
        if number != self._next:
            self._cancel()
            self._next = self._submitted = number

    def next(self) -> Batch:
        """Return the next result; raise what its building raised."""
        if self._executor is None:
            self._next += 1
            return self._build(self._next - 1)
        self._fill(self._executor)
        future = self._waiting.popleft()
        self._next += 1
        batch = future.result()
        self._fill(self._executor)
        return batch

    def close(self) -> None:
        """Stop the threads; those that are in the middle of a result finish it."""
        self._cancel()
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)

    def _fill(self, executor: ThreadPoolExecutor) -> None:
        end = self._next + self._depth
        if self._limit is not None:
            end = min(end, self._limit)
        while self._submitted < end:
            self._waiting.append(executor.submit(self._build, self._submitted))
            self._submitted += 1

    def _cancel(self) -> None:
        for future in self._waiting:
            future.cancel()
        self._waiting.clear()


class TrainLoader:
    """Training batches, epoch after epoch, the next epoch's first ones prepared while this one ends.

    Nothing is prepared past the last of `num_epochs`, if they are given.

    `epoch(e)` yields the batches of epoch e; the first call for `start_epoch` begins at `start_batch`. The
    order is a permutation keyed by (seed, epoch); the last batch may be smaller. `finish_batch` runs in the
    threads, after collation. Close it, or use it as a context.
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
    ) -> None:
        self.samples = samples
        self.batch_size = min(batch_size, max(len(samples), 1))
        self.num_batches = math.ceil(len(samples) / self.batch_size)
        self._num_epochs = num_epochs
        self._start = (start_epoch, start_batch)
        self._finish = finish_batch
        self._pin_memory = pin_memory
        self._order = lru_cache(maxsize=4)(
            partial(epoch_order, seed, count=len(samples), shuffle=shuffle),
        )
        depth = prefetch or 2 + num_threads
        self._prefetcher = Prefetcher(self._build, num_threads=num_threads, depth=depth)

    def __len__(self) -> int:
        return self.num_batches

    def epoch(self, epoch: int, start_batch: int | None = None) -> Iterator[Batch]:
        """Yield the batches of an epoch, from `start_batch` on.

        Any epoch may be asked for at any time; going on where the last one ended costs nothing. Raises what
        making an item raised, with a note of the picture.
        """
        if start_batch is None:
            start_batch = self._start[1] if epoch == self._start[0] else 0
            self._start = (-1, 0)
        first = epoch * self.num_batches
        ahead = None if self._num_epochs is None else max(self._num_epochs, epoch + 1) * self.num_batches
        self._prefetcher.seek(first + start_batch, limit=ahead)
        for _ in range(start_batch, self.num_batches):
            yield self._prefetcher.next()

    def close(self) -> None:
        """Stop the threads and wait for them."""
        self._prefetcher.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _build(self, number: int) -> Batch:
        epoch, index = divmod(number, self.num_batches)
        order = self._order(epoch)
        first = index * self.batch_size
        positions = range(first, min(first + self.batch_size, len(order)))
        items = []
        for position in positions:
            picture = int(order[position])
            with _Naming(self.samples.samples[picture].name):
                items.append(self.samples.item(epoch, position, picture))
        batch = _finished(items, epoch, index, positions, self._finish)
        return batch.pin_memory() if self._pin_memory else batch


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
        batch = _finished(items, 0, number, positions, self._finish)
        return batch.pin_memory() if self._pin_memory else batch


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


def _finished(
    items: Sequence[Item], epoch: int, index: int, positions: Sequence[int], finish: Finish | None
) -> Batch:
    batch = collate(items, epoch=epoch, index=index, positions=positions)
    return finish(batch) if finish is not None else batch
