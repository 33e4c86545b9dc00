"""Follows a job's events from the first to the last, across lost connections, without a gap or a repeat."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress

import httpx

from api.client.errors import NotEndedError, UnreachableError
from api.client.http import Client
from api.client.models import Event
from api.client.patience import GIVE_UP_S, Patience, time_left
from api.client.sse import messages

_SILENCE_S = 40.0
_CONNECT_S = 5.0
_LEAST_S = 0.1
_NO_CONTENT = 204


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
    patience = Patience(give_up_s)
    last_id = after
    while True:
        connection = _connection(client, job_id, last_id, deadline, patience)
        with patience.with_failures(), closing(connection) as events:
            for event in events:
                last_id = event.id or last_id
                if event.type == "lagged":
                    break
                yield event
                if event.type == "end":
                    return
        if time_left(deadline) <= 0:
            raise NotEndedError(job_id)
        if patience.is_over:
            raise UnreachableError(f"{client.url} gave no event for {give_up_s:g} s")
        patience.pause(deadline)


def _connection(
    client: Client, job_id: str, last_id: str | None, deadline: float | None, patience: Patience
) -> Generator[Event]:
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
    path = f"/v1/jobs/{job_id}/events"
    with (
        client.stream(path, headers=headers, timeout=_timeout(deadline)) as response,
        _cut_at(deadline, response),
    ):
        if response.status_code == _NO_CONTENT:
            yield Event(type="end")
            return
        for message in messages(_heard(response.iter_lines(), deadline, patience)):
            yield Event(type=message.event, id=message.id, data=_object(client.url, message.data))


def _heard(lines: Iterable[str], deadline: float | None, patience: Patience) -> Iterator[str]:
    """Pass lines on until the deadline; each, a ping as well, says that the service is there."""
    is_heard = False
    try:
        for line in lines:
            is_heard = True
            patience.renew()
            yield line
            if time_left(deadline) <= 0:
                return
    finally:
        # Patience begins with the loss, which silence may precede; one that never said a word was none.
        if is_heard:
            patience.renew()


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


def _timeout(deadline: float | None) -> httpx.Timeout:
    # The service breaks its silence every 15 s; twice that and a bit means that the connection is dead.
    left = max(_LEAST_S, time_left(deadline))
    return httpx.Timeout(min(_SILENCE_S, left), connect=min(_CONNECT_S, left))
