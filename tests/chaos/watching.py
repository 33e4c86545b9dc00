"""Clients that follow jobs while faults strike, and what their events come to. Knows no stack's members."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

from api.client import Client, Event
from api.client.follow import follow

PATIENCE_S = 60.0


class HasClient(Protocol):
    """Whatever a client of the service can be opened from."""

    def client(self) -> Client:
        """Open a client; the caller closes it."""


class Watcher:
    """A client that follows a job from its first event in a thread, and remembers all it was told."""

    def __init__(self, stack: HasClient, job_id: str, *, give_up_s: float = 30.0) -> None:
        self.job_id = job_id
        self.events: list[Event] = []
        self.error: Exception | None = None
        self._give_up_s = give_up_s
        self._client = stack.client()
        self._thread = threading.Thread(target=self._run, name=f"watch {job_id}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with self._client:
                for event in follow(self._client, self.job_id, give_up_s=self._give_up_s):
                    self.events.append(event)
        except Exception as error:  # noqa: BLE001 - handed to the test, which waits for it
            self.error = error

    def join(self, timeout_s: float = PATIENCE_S) -> list[Event]:
        """Wait for the end of the job and return the events of the run, those with an id, without the end."""
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), f"{self.job_id}: the watcher got no end"
        assert self.error is None, f"{self.job_id}: {self.error!r}"
        assert self.events[-1].type == "end"
        return [event for event in self.events[:-1] if event.id is not None]


def position(event: Event) -> tuple[int, int]:
    """Return (attempt, seq) of an event of a run."""
    assert event.id is not None
    return parse_id(event.id)


def parse_id(text: str) -> tuple[int, int]:
    """Return (attempt, seq) of `<attempt>-<seq>`."""
    attempt, _, seq = text.partition("-")
    return int(attempt), int(seq)


def that_count(events: Sequence[Event]) -> list[Event]:
    """Return the events that count once a client has cut at each `resume.after`.

    An attempt that begins anew, for want of a checkpoint in the book, leaves nothing of the ones before.
    """
    kept: list[Event] = []
    for event in events:
        attempt, _ = position(event)
        if event.type in ("resume", "start"):
            after = parse_id(event.data.get("after") or "0-0")
            kept = [one for one in kept if position(one) <= after or position(one)[0] == attempt]
        kept.append(event)
    return kept


def in_short(events: Sequence[Event]) -> str:
    """Return the ids and types of events, with the epoch where they have one and what a resume cuts."""

    def one(event: Event) -> str:
        about = [str(event.data[name]) for name in ("epoch", "batch", "after") if name in event.data]
        return f"{event.id} {event.type} {'/'.join(about)}"

    return ", ".join(one(event) for event in events)
