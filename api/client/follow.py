"""Follows a job's events from the first to the last, across lost connections, without a gap or a repeat."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from api.client.errors import ApiError, UnreachableError
from api.client.http import Client
from api.client.models import Event
from api.client.sse import messages

_SILENCE_S = 40.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0
_GIVE_UP_S = 120.0
_NO_CONTENT, _TOO_MANY = 204, 429


def follow(
    client: Client,
    job_id: str,
    *,
    after: str | None = None,
    give_up_s: float = _GIVE_UP_S,
    deadline: float | None = None,
) -> Iterator[Event]:
    """Yield a job's events after the id `after`, or all; ends with an event of type `end`.

    Snapshots (type `job`, without id) come at the start of each connection. A lost connection is opened again
    from the last id. Raises UnreachableError when that fails for `give_up_s`, ApiError when the service
    refuses, and TimeoutError at `deadline` (of `time.monotonic`).
    """
    patience = _Patience(give_up_s)
    last_id = after
    while True:
        with patience.with_failures():
            for event in _connection(client, job_id, last_id, deadline):
                patience.renew()
                last_id = event.id or last_id
                if event.type == "lagged":
                    break
                yield event
                if event.type == "end":
                    return
        if deadline is not None and time.monotonic() >= deadline:
            raise TimeoutError(f"{job_id} has not ended in time; it goes on")
        if patience.is_over:
            raise UnreachableError(f"{client.url} gave no event for {give_up_s:g} s")
        patience.pause()


class _Patience:
    """How long a silent service is asked again, and how slowly."""

    def __init__(self, give_up_s: float) -> None:
        self._give_up_s = give_up_s
        self.renew()

    def renew(self) -> None:
        self._alive_at = time.monotonic()
        self._pause_s = _FIRST_PAUSE_S

    @property
    def is_over(self) -> bool:
        return time.monotonic() - self._alive_at > self._give_up_s

    @contextmanager
    def with_failures(self) -> Iterator[None]:
        """Let pass what may be better at the next attempt."""
        try:
            yield
        except ApiError as error:
            if error.status < 500 and error.status != _TOO_MANY:
                raise
        except UnreachableError:
            if self.is_over:
                raise

    def pause(self) -> None:
        time.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)


def _connection(client: Client, job_id: str, last_id: str | None, deadline: float | None) -> Iterator[Event]:
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
    path = f"/v1/jobs/{job_id}/events"
    with client.stream(path, headers=headers, timeout=_timeout(deadline)) as response:
        if response.status_code == _NO_CONTENT:
            yield Event(type="end")
            return
        for message in messages(response.iter_lines()):
            data = json.loads(message.data)
            yield Event(type=message.event, id=message.id, data=data if isinstance(data, dict) else {})
            if deadline is not None and time.monotonic() >= deadline:
                return


def _timeout(deadline: float | None) -> httpx.Timeout:
    # The service breaks its silence every 15 s; twice that and a bit means that the connection is dead.
    left = _SILENCE_S if deadline is None else max(0.1, deadline - time.monotonic())
    return httpx.Timeout(min(_SILENCE_S, left), connect=5.0)
