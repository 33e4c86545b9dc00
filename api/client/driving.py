"""Carries plans out: at once, or awaiting each step. Neither knows what a plan is about."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Generic, TypeVar

import anyio
import anyio.to_thread
import httpx

from api.client.errors import ClientError
from api.client.steps import Piece, Plan, Rest, Send, Step

T = TypeVar("T")


class _Course(Generic[T]):
    """A plan under way: gives its next step for what came of the last one."""

    def __init__(self, plan: Plan[T]) -> None:
        self._plan = plan
        self.result: Any = None
        self.failure: Exception | None = None
        self.value: T

    def advance(self) -> Step | None:
        """Return the next step; None at the end, when `value` is what the plan returned."""
        result, failure = self.result, self.failure
        self.result = self.failure = None
        try:
            return self._plan.throw(failure) if failure is not None else self._plan.send(result)
        except StopIteration as ended:
            self.value = ended.value
            return None


def carry_out(plan: Plan[T], request: Callable[..., httpx.Response]) -> T:
    """Carry a plan out and return what it returns; `request` sends one request."""
    course = _Course(plan)
    while (step := course.advance()) is not None:
        try:
            if isinstance(step, Send):
                course.result = request(step.method, step.path, **_with_content(step, Piece.chunks))
            elif isinstance(step, Rest):
                time.sleep(step.seconds)
            else:
                course.result = step.call()
        except (ClientError, OSError) as error:
            course.failure = error
    return course.value


async def carry_out_async(plan: Plan[T], request: Callable[..., Awaitable[httpx.Response]]) -> T:
    """Carry a plan out as `carry_out`, leaving the event loop free meanwhile."""
    course = _Course(plan)
    while (step := course.advance()) is not None:
        try:
            if isinstance(step, Send):
                course.result = await request(step.method, step.path, **_with_content(step, _chunks_async))
            elif isinstance(step, Rest):
                await anyio.sleep(step.seconds)
            else:
                course.result = await anyio.to_thread.run_sync(step.call)
        except (ClientError, OSError) as error:
            course.failure = error
    return course.value


def _with_content(step: Send, chunks: Callable[[Piece], Any]) -> dict[str, Any]:
    """Return a step's options with the body in the form that a kind of client sends."""
    content = step.options.get("content")
    return {**step.options, "content": chunks(content)} if isinstance(content, Piece) else step.options


async def _chunks_async(piece: Piece) -> AsyncIterator[bytes]:
    chunks = piece.chunks()
    while (chunk := await anyio.to_thread.run_sync(next, chunks, None)) is not None:
        yield chunk
