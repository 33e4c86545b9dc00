"""`Prefer: wait=30` (RFC 7240): hold an answer back until there is news."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import TypeVar

import anyio.to_thread

T = TypeVar("T")

_WAIT = re.compile(r"(?:^|,)\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?=$|[,;])", re.IGNORECASE)
_FIRST_S, _LONGEST_S = 0.1, 0.5


def wanted_wait_s(header: str | None, *, most_s: float) -> float:
    """Return how long to wait for news; 0 where nothing was asked for."""
    match = _WAIT.search(header or "")
    return min(float(match[1]), most_s) if match else 0.0


async def wait_for(
    read: Callable[[], T],
    is_news: Callable[[T], bool],
    *,
    wait_s: float,
    stopping: Callable[[], bool],
) -> T:
    """Read again and again until it is news, the time is up or the process stops; return what was read."""
    deadline = time.monotonic() + wait_s
    pause_s = _FIRST_S
    while True:
        value = await anyio.to_thread.run_sync(read)
        left_s = deadline - time.monotonic()
        if is_news(value) or left_s <= 0 or stopping():
            return value
        await asyncio.sleep(min(pause_s, left_s))
        pause_s = min(2 * pause_s, _LONGEST_S)
