"""A job's batches as one curve: of each attempt those that still count, from journals, archive and stream.

An attempt that goes on from a checkpoint runs some batches again; those the earlier attempt told behind the
checkpoint are left out. Nothing is held but what is kept. It must not know HTTP.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from pydantic import BaseModel, ConfigDict

from api.domain.wire import EventId, WireError
from api.events.history import LAST, History
from api.jobs.sampling import Sampler

Batch = Mapping[str, Any]
_LOSSES = ("box", "obj", "cls")
_FROM_THE_START = EventId(0, 0)


class BatchView(BaseModel):
    """The figures of one batch event, flat as it was told: means over the batches since the one before."""

    model_config = ConfigDict(extra="allow")

    id: str
    ts: float
    epoch: int
    batch: int


class BatchList(BaseModel):
    """Batches that count, in order; `count` says how many there are before they are thinned out."""

    items: list[BatchView]
    count: int


async def counting_batches(history: History, attempts: Sequence[int]) -> AsyncGenerator[Batch]:
    """Give the batch events of these attempts that count, in order."""
    for after, until in await _spans(history, attempts):
        async with aclosing(history.between(after, until, kind="batch")) as events:
            async for event in events:
                yield event.values


async def thinned_batches(history: History, attempts: Sequence[int], most: int) -> tuple[list[Batch], int]:
    """Return at most `most` of the batches that count, the extremes among them, and how many there are."""
    sampler: Sampler[Batch] = Sampler(most, batch_figures)
    async with aclosing(counting_batches(history, attempts)) as batches:
        async for batch in batches:
            sampler.add(batch)
    return sampler.points(), sampler.count


def batch_figures(batch: Batch) -> list[float | None]:
    """Return the figures whose extremes are kept: the sum of the losses, then each of them."""
    return loss_figures(batch.get("loss"))


def loss_figures(losses: Any) -> list[float | None]:
    """Return the sum of the three losses and each of them, None where one is not a number."""
    told = losses if isinstance(losses, Mapping) else {}
    parts = [told.get(name) for name in _LOSSES]
    numbers = [part for part in parts if part is not None]
    return [sum(numbers) if len(numbers) == len(parts) else None, *parts]


async def _spans(history: History, attempts: Sequence[int]) -> list[tuple[EventId, EventId]]:
    """Return the open intervals of ids that count, oldest first: each attempt cuts the one it follows."""
    spans: list[tuple[EventId, EventId]] = []
    until = LAST
    for attempt in sorted(attempts, reverse=True):
        begin, end = EventId(attempt, 0), min(until, EventId(attempt + 1, 0))
        if begin < end:
            spans.insert(0, (begin, end))
        until = min(until, await _followed(history, attempt))
    return spans


async def _followed(history: History, attempt: int) -> EventId:
    """Return the first earlier id that an attempt does not go on from; LAST where it told nothing."""
    bounds = EventId(attempt, 0), EventId(attempt + 1, 0)
    async with aclosing(history.between(*bounds)) as events:
        first = await anext(events, None)
    if first is None:
        return LAST
    after = first.values.get("after") if first.type == "resume" else None
    try:
        last = EventId.parse(after) if after else _FROM_THE_START
    except WireError:
        last = _FROM_THE_START
    return EventId(last.attempt, last.seq + 1)
