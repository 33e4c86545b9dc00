"""Carries plans out: at once, or awaiting each step. Neither knows what a plan is about."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import httpx

from api.client.errors import ClientError
from api.client.steps import Piece, Plan, Rest, Send

T = TypeVar("T")


def carry_out(plan: Plan[T], request: Callable[..., httpx.Response]) -> T:
    """Carry a plan out and return what it returns; `request` sends one request."""
    result: Any = None
    failure: Exception | None = None
    while True:
        try:
            step = plan.throw(failure) if failure is not None else plan.send(result)
        except StopIteration as ended:
            value: T = ended.value
            return value
        result, failure = None, None
        try:
            if isinstance(step, Send):
                result = request(step.method, step.path, **_with_content(step, Piece.chunks))
            elif isinstance(step, Rest):
                time.sleep(step.seconds)
            else:
                result = step.call()
        except (ClientError, OSError) as error:
            failure = error


async def carry_out_async(plan: Plan[T], request: Callable[..., Awaitable[httpx.Response]]) -> T:
    """Carry a plan out as `carry_out`, leaving the event loop free meanwhile."""
    result: Any = None
    failure: Exception | None = None
    while True:
        try:
            step = plan.throw(failure) if failure is not None else plan.send(result)
        except StopIteration as ended:
            value: T = ended.value
            return value
        result, failure = None, None
        try:
            if isinstance(step, Send):
                result = await request(step.method, step.path, **_with_content(step, _chunks_async))
            elif isinstance(step, Rest):
                await anyio.sleep(step.seconds)
            else:
                result = await anyio.to_thread.run_sync(step.call)
        except (ClientError, OSError) as error:
            failure = error


def _with_content(step: Send, chunks: Callable[[Piece], Any]) -> dict[str, Any]:
    """Return a step's options with the body in the form that a kind of client sends."""
    content = step.options.get("content")
    return {**step.options, "content": chunks(content)} if isinstance(content, Piece) else step.options


async def _chunks_async(piece: Piece) -> AsyncIterator[bytes]:
    chunks = piece.chunks()
    while (chunk := await anyio.to_thread.run_sync(next, chunks, None)) is not None:
        yield chunk
