"""Follows a job's events from the first to the last, across lost connections, without a gap or a repeat."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import aclosing, closing, contextmanager, suppress
from typing import Any

import anyio
import httpx

from api.client.aio import AsyncClient
from api.client.errors import NotEndedError, UnreachableError
from api.client.http import Client
from api.client.models import Event
from api.client.patience import GIVE_UP_S, Patience, time_left
from api.client.sse import Reader

_SILENCE_S = 40.0
_CONNECT_S = 5.0
_LEAST_S = 0.1
_NO_CONTENT = 204


class Following:
    """Where a follower is: after which event, how patient, until when. It knows no connection."""

    def __init__(
        self, url: str, job_id: str, after: str | None, give_up_s: float, deadline: float | None
    ) -> None:
        self.url = url
        self.path = f"/v1/jobs/{job_id}/events"
        self.deadline = deadline
        self.patience = Patience(give_up_s)
        self.is_over = False
        self._job_id = job_id
        self._last_id = after
        self._give_up_s = give_up_s
        self._reader = Reader()
        self._is_heard = False

    def options(self) -> dict[str, Any]:
        """Return how the next connection is opened, which begins to be read."""
        self._reader = Reader()
        last = {"Last-Event-ID": self._last_id} if self._last_id else {}
        # The service breaks its silence every 15 s; twice that and a bit means that the connection is dead.
        left = max(_LEAST_S, time_left(self.deadline))
        timeout = httpx.Timeout(min(_SILENCE_S, left), connect=min(_CONNECT_S, left))
        return {"headers": {"Accept": "text/event-stream"} | last, "timeout": timeout}

    def read(self, line: str) -> Event | None:
        """Take a line, which says that the service is there (a ping as well); return the event it ends."""
        self._is_heard = True
        self.patience.renew()
        message = self._reader.feed(line)
        if message is None:
            return None
        event = Event(type=message.event, id=message.id, data=_object(self.url, message.data))
        self._last_id = event.id or self._last_id
        self.is_over = event.type == "end"
        return event

    @contextmanager
    def hearing(self) -> Iterator[None]:
        """Let patience begin with the loss, which silence may precede; one that said nothing was none."""
        self._is_heard = False
        try:
            yield
        finally:
            if self._is_heard:
                self.patience.renew()

    def nothing_more(self) -> Event:
        """Return the end of a job whose events were all read."""
        self.is_over = True
        return Event(type="end")

    @property
    def must_end(self) -> bool:
        """Whether this connection has nothing more to say, or no more time."""
        return self.is_over or time_left(self.deadline) <= 0

    def pause_s(self) -> float:
        """Return how long to wait before the next connection; raises what ends the following."""
        if time_left(self.deadline) <= 0:
            raise NotEndedError(self._job_id)
        if self.patience.is_over:
            raise UnreachableError(f"{self.url} gave no event for {self._give_up_s:g} s")
        return self.patience.next_pause_s(self.deadline)


def follow(
    client: Client,
    job_id: str,
    *,
    after: str | None = None,
    give_up_s: float = GIVE_UP_S,
    deadline: float | None = None,
) -> Iterator[Event]:
    """Yield a job's events after the id `after`, or all; ends with an event of type `end`.

    Snapshots (type `job`, without id) come at the start of each connection. A lost connection is opened again
    from the last id. Raises UnreachableError, or the ApiError of a 5xx, when that fails for `give_up_s`
    seconds after the loss, ApiError when the service refuses, and NotEndedError at `deadline` (of
    `time.monotonic`).
    """
    state = Following(client.url, job_id, after, give_up_s, deadline)
    while True:
        with state.patience.with_failures(), closing(_connection(client, state)) as events:
            yield from events
        if state.is_over:
            return
        time.sleep(state.pause_s())


def _connection(client: Client, state: Following) -> Generator[Event]:
    with (
        client.stream(state.path, **state.options()) as response,
        _cut_at(state.deadline, response),
        state.hearing(),
    ):
        if response.status_code == _NO_CONTENT:
            yield state.nothing_more()
            return
        for line in response.iter_lines():
            event = state.read(line)
            if event is not None and event.type == "lagged":
                return
            if event is not None:
                yield event
            if state.must_end:
                return


async def follow_async(
    client: AsyncClient,
    job_id: str,
    *,
    after: str | None = None,
    give_up_s: float = GIVE_UP_S,
    deadline: float | None = None,
) -> AsyncIterator[Event]:
    """Yield a job's events as `follow`, to `async for`."""
    state = Following(client.url, job_id, after, give_up_s, deadline)
    while True:
        with state.patience.with_failures():
            async with aclosing(_connection_async(client, state)) as events:
                async for event in events:
                    yield event
        if state.is_over:
            return
        await anyio.sleep(state.pause_s())


async def _connection_async(client: AsyncClient, state: Following) -> AsyncGenerator[Event]:
    async with client.stream(state.path, **state.options()) as response:
        if response.status_code == _NO_CONTENT:
            yield state.nothing_more()
            return
        lines = response.aiter_lines()
        with state.hearing():
            while (line := await _next_line(lines, state.deadline)) is not None:
                event = state.read(line)
                if event is not None and event.type == "lagged":
                    return
                if event is not None:
                    yield event
                if state.must_end:
                    return


async def _next_line(lines: AsyncIterator[str], deadline: float | None) -> str | None:
    """Return the next line; None at the end of the body, or at the deadline."""
    with anyio.move_on_after(max(0.0, time_left(deadline))):
        return await anext(lines, None)
    return None


def _object(url: str, text: str) -> dict[str, object]:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise UnreachableError(f"{url} does not answer like this service: {error}") from error
    return data if isinstance(data, dict) else {}


@contextmanager
def _cut_at(deadline: float | None, response: httpx.Response) -> Iterator[None]:
    """End a body at the deadline; the read timeout cannot, as it starts anew at every ping."""
    stream = response.extensions.get("network_stream")
    if deadline is None or stream is None:
        yield
        return
    wait_s = min(max(0.0, time_left(deadline)), threading.TIMEOUT_MAX)
    timer = threading.Timer(wait_s, _shut, [stream.get_extra_info("socket")])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _shut(connection: socket.socket) -> None:
    # Wakes the thread that reads; closing would not.
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
