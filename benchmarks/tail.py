"""Ships a journal into Redis as a worker does, until standard input ends: `tail JOURNAL URL`.

A program of its own, as in the service, where the worker is another process than the trainer. Prints `ready`,
and at the end how many events the stream holds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import redis

from api.domain import wire
from worker.journal import Journal
from worker.stream import StreamShipper, StreamTarget

_JOB = "job_bench"


class OwnBeats:
    """A claim nobody disputes: every nudge is a heartbeat."""

    def __init__(self) -> None:
        self._beats = 0

    def num_beats(self) -> int:
        """Return how many nudges there were."""
        return self._beats

    def answered_s_ago(self) -> float:
        """Return that it was now."""
        return 0.0

    def nudge(self) -> None:
        """Count one more."""
        self._beats += 1


def fields(event: dict[str, Any]) -> dict[str, str]:
    """Encode an event as the worker does."""
    return wire.stream_fields(wire.journal_event(json.dumps(event), job_id=_JOB, attempt=1))


def main(journal: Path, url: str) -> None:
    """Ship until standard input ends."""
    client = redis.Redis.from_url(url)
    key = wire.events_key(_JOB)
    client.delete(key)
    target = StreamTarget(key, 1, 20_000, 3600, 3600, fields)
    shipper = StreamShipper(
        Journal(journal),
        target,
        OwnBeats(),
        redis_url=url,
        poll_s=0.2,
        backoff_s=1.0,
        check_s=5.0,
        trust_s=22.5,
    )
    shipper.start()
    print("ready", flush=True)
    sys.stdin.read()
    shipper.finish(5.0)
    try:
        print(client.xlen(key), flush=True)
    except redis.RedisError:
        sys.exit("the Redis of this measurement is gone")
    finally:
        client.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
