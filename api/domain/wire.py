"""Names and shapes on the wire: Redis keys, queue names, event ids, and the envelope of an event.

Shared by the worker that ships a journal and the API that streams it. Pure: opens no connection, and knows
of an event only what every event has (type, seq, ts).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

PREFIX = "trainshed:"
CHANGES_KEY = PREFIX + "changes"
EVENT_FIELD = "event"
QUEUE_TRAIN_CPU = "train.cpu"
QUEUE_INGEST = "ingest"
# A queue's name becomes a key in Redis: no name may meet another's key, nor the queue of another task.
QUEUE_TRAIN_PATTERN = r"^train\.(cpu|g[1-9][0-9]?)$"
TASK_TRAIN = "trainshed.train"
TASK_INGEST = "trainshed.ingest"
ENVELOPE_VERSION = 1

WireEvent = dict[str, Any]


class WireError(ValueError):
    """A line or a field that is no event."""


@dataclass(frozen=True, order=True)
class EventId:
    """`<attempt>-<seq>`: minted by the run, so that sending twice is the same as sending once."""

    attempt: int
    seq: int

    def __str__(self) -> str:
        return f"{self.attempt}-{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an id; raises WireError where it is none."""
        attempt, dash, seq = text.partition("-")
        if not (dash and _is_number(attempt) and _is_number(seq)):
            raise WireError(f"not an event id: {text[:40]!r}")
        return cls(int(attempt), int(seq))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18


def events_key(job_id: str) -> str:
    """Return the key of a job's event stream."""
    return f"{PREFIX}events:{job_id}"


def queue_key(queue: str) -> str:
    """Return the key of the Celery list of a queue."""
    return PREFIX + queue


def queue_task(queue: str) -> str:
    """Return the Celery task a message in this queue calls."""
    return TASK_INGEST if queue == QUEUE_INGEST else TASK_TRAIN


def journal_event(line: bytes | str, *, job_id: str, attempt: int) -> WireEvent:
    """Turn one whole journal line into the event that is told.

    Takes {"v","seq","ts","type",...} and returns {"v","job","id","ts","type",...}; a `resume` event gets its
    `attempt`. Raises WireError where the line is no such object.
    """
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise WireError(f"journal line is not JSON: {error}") from error
    if not isinstance(entry, dict):
        raise WireError("journal line is not an object")
    seq, kind, ts = entry.pop("seq", None), entry.pop("type", None), entry.pop("ts", None)
    if not isinstance(seq, int) or seq < 1 or not isinstance(kind, str) or not isinstance(ts, int | float):
        raise WireError("journal line lacks seq, ts or type")
    entry.pop("v", None)
    if kind == "resume":
        entry["attempt"] = attempt
    head = {"v": ENVELOPE_VERSION, "job": job_id, "id": str(EventId(attempt, seq)), "ts": ts, "type": kind}
    return {**entry, **head}


def dumps(event: Mapping[str, Any]) -> str:
    """Return the one-line JSON of an event."""
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def stream_fields(event: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields an event has in a Redis stream."""
    return {EVENT_FIELD: dumps(event)}


def stream_event(fields: Mapping[Any, Any]) -> WireEvent:
    """Read an event back from the fields of a stream entry, bytes or text; raises WireError."""
    raw = fields.get(EVENT_FIELD, fields.get(EVENT_FIELD.encode()))
    if raw is None:
        raise WireError("stream entry without an event")
    try:
        event = json.loads(raw)
    except ValueError as error:
        raise WireError(f"stream entry is not JSON: {error}") from error
    if not isinstance(event, dict) or "id" not in event or "type" not in event:
        raise WireError("stream entry is not an event")
    return event
