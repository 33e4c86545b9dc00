"""Journals and streams made by hand, for tests of what reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import redis

from api.domain import wire


def journal_line(seq: int, **values: Any) -> str:
    """Return one journal line, a log event unless told otherwise."""
    entry = {"v": 1, "seq": seq, "ts": 1000.0 + seq, "type": "log", "level": "info", "message": f"line {seq}"}
    return json.dumps({**entry, **values}, separators=(",", ":")) + "\n"


class RunOnDisk:
    """The attempts' folders of one job, and its stream, written as a worker would."""

    def __init__(self, jobs_dir: Path, job: str) -> None:
        self.job = job
        self.attempts_dir = jobs_dir / job / "attempts"

    def write(self, attempt: int, seqs: range, **values: Any) -> None:
        """Append lines to the journal of an attempt."""
        folder = self.attempts_dir / str(attempt)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "events.jsonl").open("a") as file:
            file.writelines(journal_line(seq, **values) for seq in seqs)

    def ship(self, client: redis.Redis, attempt: int, seqs: range, **values: Any) -> None:
        """Add events to the stream."""
        for seq in seqs:
            event = wire.journal_event(journal_line(seq, **values), job_id=self.job, attempt=attempt)
            fields: dict[Any, Any] = dict(wire.stream_fields(event))
            client.xadd(wire.events_key(self.job), fields, id=f"{attempt}-{seq}")
