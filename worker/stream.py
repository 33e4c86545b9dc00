"""Ship a journal into the job's event stream, however often Redis goes away, restarts or forgets.

What is in the stream is asked of the stream, never remembered: after each new connection, and now and then
in quiet times, shipping goes on from the stream's own last id. It must not know SQL nor the child; training
never waits for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import redis
import structlog

from worker.journal import DamagedJournalError, Journal
from worker.wire import Command, Wire, WireDownError

_LOG = structlog.get_logger(__name__)
_BATCH = 100


class Beats(Protocol):
    """What the shipper needs of the lease: proof that the attempt is still ours."""

    def num_beats(self) -> int:
        """Return how many heartbeats have succeeded."""

    def answered_s_ago(self) -> float:
        """Return the age of the last heartbeat that succeeded by a clock that no stop of ours holds up."""

    def nudge(self) -> None:
        """Ask for a heartbeat now."""


@dataclass(frozen=True)
class StreamTarget:
    """Where events go: the key, the attempt that begins each id, and the bounds of the stream."""

    key: str
    attempt: int
    max_events: int
    ttl_s: int
    final_ttl_s: int
    encode: Callable[[dict[str, Any]], dict[str, str]]


class SupersededError(Exception):
    """The stream holds events of a later attempt: we are a zombie and our events are unwanted."""


def parse_id(stream_id: str) -> tuple[int, int]:
    """Return (attempt, seq) of `<attempt>-<seq>`."""
    attempt, _, seq = stream_id.partition("-")
    return int(attempt), int(seq)


class StreamShipper:
    """Moves whole journal lines to Redis in a thread of its own.

    Nothing is added while the last answered heartbeat is older than `trust_s`: whoever slept that long may
    have lost the claim, and the reaper knows before we do. Events wait in the journal meanwhile.
    """

    def __init__(
        self,
        journal: Journal,
        target: StreamTarget,
        beats: Beats,
        *,
        redis_url: str,
        poll_s: float,
        backoff_s: float,
        check_s: float,
        trust_s: float,
    ) -> None:
        self._journal = journal
        self._target = target
        self._beats = beats
        self._url = redis_url
        self._poll_s = poll_s
        self._backoff_s = backoff_s
        self._check_s = check_s
        self._trust_s = trust_s
        self._wire: Wire | None = None
        # Said once while it lasts.
        self._is_away = False
        self._shipped = 0
        self._checked_at = 0.0
        # Heartbeats counted when the stream was first seen missing; None while it exists.
        self._missing_since: int | None = None
        self._finish_by: float | None = None
        self._ended = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stream", daemon=True)

    def start(self) -> None:
        """Begin shipping."""
        self._thread.start()

    def finish(self, timeout_s: float) -> bool:
        """Ship what is left and stop; tell whether the stream ends as the journal does.

        After `timeout_s` without Redis it gives up: readers then find the events in the journal's archive.
        """
        self._finish_by = time.monotonic() + timeout_s
        self._wake.set()
        self._thread.join()
        return self._ended.is_set()

    def abandon(self) -> None:
        """Stop at once; for an attempt that is no longer ours."""
        self.finish(0.0)

    def _run(self) -> None:
        try:
            while not self._is_over():
                self._wake.wait(self._step())
        except SupersededError:
            _LOG.warning("stream belongs to a later attempt", key=self._target.key)
        except DamagedJournalError as error:
            _LOG.error("shipping ends where the journal is damaged", key=self._target.key, error=str(error))
        finally:
            if self._wire is not None:
                self._wire.close()

    def _is_over(self) -> bool:
        if self._finish_by is None:
            return False
        # Once more against the stream itself: it may have been lost since we last wrote.
        if self._ended.is_set() or time.monotonic() >= self._finish_by:
            return True
        self._wake.clear()
        return False

    def _step(self) -> float:
        """Do what can be done now and return the seconds to wait before the next try."""
        try:
            if self._wire is None:
                self._wire = Wire(self._url)
                self._resync(self._wire)
                self._is_away = False
            return self._ship(self._wire)
        except WireDownError as error:
            if not self._is_away:
                _LOG.info("redis is away, events stay in the journal", key=self._target.key, error=str(error))
            self._wire, self._is_away = None, True
            return self._backoff_s

    def _ship(self, wire: Wire) -> float:
        events = self._journal.read(self._shipped + 1, max_lines=_BATCH)
        if not events:
            return self._rest(wire)
        create = self._may_create()
        if create is None:
            self._resync(wire)
            return self._poll_s
        commands = [*self._commands(events, create=create), self._expire(self._target.ttl_s)]
        # Last of all: what lies between the question and the write is what a stop can still slip into.
        if not self._is_trusted():
            return self._poll_s
        answers = wire.transaction(commands)
        if any(answer is None or isinstance(answer, redis.ResponseError) for answer in answers[:-1]):
            # Missing (nil), or its last id is not what we thought (refused): look again.
            self._resync(wire)
            return self._poll_s
        self._missing_since = None
        self._shipped = int(events[-1]["seq"])
        self._checked_at = time.monotonic()
        return 0.0 if len(events) == _BATCH else self._poll_s

    def _rest(self, wire: Wire) -> float:
        if self._finish_by is not None and self._shipped == 0 and self._journal.num_lines() == 0:
            self._ended.set()
            return 0.0
        due = time.monotonic() - self._checked_at >= self._check_s
        if self._finish_by is not None or due:
            before = self._shipped
            self._resync(wire)
            is_whole = self._missing_since is None and self._shipped == before
            if self._finish_by is not None and is_whole and self._is_trusted():
                self._ended.set()
                wire.call([self._expire(self._target.final_ttl_s)])
        return self._poll_s

    def _is_trusted(self) -> bool:
        return self._beats.answered_s_ago() <= self._trust_s

    def _may_create(self) -> bool | None:
        """Return False: it exists; True: it may be made; None: missing, and not yet proven ours."""
        if self._missing_since is None:
            return False
        return True if self._beats.num_beats() > self._missing_since else None

    def _resync(self, wire: Wire) -> None:
        (answer,) = wire.call([("XINFO", "STREAM", self._target.key)])
        self._checked_at = time.monotonic()
        if isinstance(answer, redis.ResponseError):
            if "no such key" not in str(answer).lower():
                wire.close()
                raise WireDownError(str(answer))
            if self._missing_since is None:
                self._missing_since = self._beats.num_beats()
                self._beats.nudge()
            self._shipped = 0
            return
        self._missing_since = None
        pairs = dict(zip(answer[::2], answer[1::2], strict=True))
        attempt, seq = parse_id(pairs["last-generated-id"])
        if attempt > self._target.attempt:
            raise SupersededError
        self._shipped = seq if attempt == self._target.attempt else 0

    def _commands(self, events: list[dict[str, Any]], *, create: bool) -> list[Command]:
        target = self._target
        commands: list[Command] = []
        for event in events:
            head: Command = ("XADD", target.key) if create else ("XADD", target.key, "NOMKSTREAM")
            create = False
            fields = [part for pair in target.encode(event).items() for part in pair]
            stream_id = f"{target.attempt}-{event['seq']}"
            commands.append((*head, "MAXLEN", "~", target.max_events, stream_id, *fields))
        return commands

    def _expire(self, ttl_s: int) -> Command:
        return ("EXPIRE", self._target.key, ttl_s)
