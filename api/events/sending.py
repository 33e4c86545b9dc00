"""The response that sends an event stream.

FastAPI's own passes each message through three tasks and two queues and checks it as a model: a thousand
watchers of five events a second then need more than a core. This one has two tasks, one of which sleeps
until the client hangs up. It must not know what the messages say.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.events.frames import Frame

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # Proxies such as nginx must not hold messages back.
    (b"x-accel-buffering", b"no"),
]


class FrameResponse(Response):
    """Sends the frames that `opened` yields, until they end or the client is gone; then leaves `opened`."""

    def __init__(self, opened: AbstractAsyncContextManager[AsyncIterator[Frame]]) -> None:
        super().__init__()
        self._opened = opened

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as an ASGI application."""
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        sending = asyncio.ensure_future(self._send(send))
        listening = asyncio.ensure_future(_hang_up(receive))
        try:
            await asyncio.wait((sending, listening), return_when=asyncio.FIRST_COMPLETED)
        finally:
            listening.cancel()
            if not sending.done():
                sending.cancel()
            await asyncio.gather(sending, listening, return_exceptions=True)
        if not sending.cancelled() and (error := sending.exception()) is not None:
            raise error

    async def _send(self, send: Send) -> None:
        async with self._opened as frames:
            async for frame in frames:
                await send({"type": "http.response.body", "body": frame.wire, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _hang_up(receive: Receive) -> None:
    """Wait until the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
