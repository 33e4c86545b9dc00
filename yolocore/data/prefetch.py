"""Results of numbered work in order, made ahead of time in threads.

OpenCV and torch release the interpreter lock, so threads scale and nothing is pickled. It knows nothing of
what is made.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """Runs build(number) for rising numbers in threads and hands the results out in that order.

    At most `depth` results wait or are under way. An exception comes out where its result would have; with
    no threads everything runs in the caller's.
    """

    def __init__(self, build: Callable[[int], T], *, num_threads: int, depth: int) -> None:
        self._build = build
        self._depth = depth
        self._executor = (
            ThreadPoolExecutor(num_threads, thread_name_prefix="loader") if num_threads > 0 else None
        )
        self._waiting: deque[Future[T]] = deque()
        self._next = 0
        self._submitted = 0
        self._limit: int | None = None

    def seek(self, number: int, limit: int | None = None) -> None:
        """Go on with `number`, dropping what was prepared for other places; nothing is built from `limit`."""
        self._limit = limit
        if number != self._next:
            self._next = number
            self.drop()

    def next(self) -> T:
        """Return the next result; raise what its building raised."""
        if self._executor is None:
            self._next += 1
            return self._build(self._next - 1)
        self._fill(self._executor)
        future = self._waiting.popleft()
        self._next += 1
        result = future.result()
        self._fill(self._executor)
        return result

    def drop(self) -> None:
        """Forget what was prepared; it is built anew when it is asked for."""
        for future in self._waiting:
            future.cancel()
        self._waiting.clear()
        self._submitted = self._next

    def close(self) -> None:
        """Stop the threads; those that are in the middle of a result finish it."""
        self.drop()
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)

    def _fill(self, executor: ThreadPoolExecutor) -> None:
        end = self._next + self._depth
        if self._limit is not None:
            end = min(end, self._limit)
        while self._submitted < end:
            self._waiting.append(executor.submit(self._build, self._submitted))
            self._submitted += 1
