"""What must hold of a job that has ended, whatever struck on the way: told, kept and trained without a gap.

Read over HTTP and from the journals of a stack whose trainers only pretend.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from api.client import Client, Event, Job
from api.client.follow import follow
from tests.chaos.watching import PATIENCE_S, Watcher, in_short, parse_id, position, that_count
from worker.simulator import final_digest
from yolocore.spec.config import parse_config

FINAL = frozenset({"succeeded", "failed", "cancelled"})


class Outcomes(ABC):
    """The part of a stack that is asked what came of its jobs."""

    @abstractmethod
    def client(self, api: int = 0, url: str | None = None) -> Client:
        """Open a client of one API process, or of a proxy before it."""

    @abstractmethod
    def journal(self, job_id: str, attempt: int) -> list[dict[str, Any]]:
        """Return what an attempt told, whole lines only."""

    @abstractmethod
    def await_state(
        self, job_id: str, statuses: str | Collection[str], *, attempt: int = 0, timeout_s: float = PATIENCE_S
    ) -> float:
        """Wait until a job is in one of the states, in this attempt or a later one; return the seconds."""

    def told(self, job_id: str, *, api: int = 0) -> list[Event]:
        """Return all events of a finished job with an id, as a new client is told them now."""
        with self.client(api) as client:
            events = list(follow(client, job_id, give_up_s=20, deadline=time.monotonic() + PATIENCE_S))
        assert events[-1].type == "end"
        return [event for event in events[:-1] if event.id is not None]

    def transitions(self, job_id: str) -> list[dict[str, Any]]:
        """Return the audit trail of a job, oldest first."""
        return list(self._items(f"/v1/jobs/{job_id}/transitions"))

    def attempts(self, job_id: str) -> list[dict[str, Any]]:
        """Return the attempts at a job."""
        return list(self._items(f"/v1/jobs/{job_id}/attempts"))

    def _items(self, path: str) -> Iterator[dict[str, Any]]:
        with self.client() as client:
            yield from sorted(
                client.request("GET", path).json()["items"], key=lambda item: item.get("seq", item["attempt"])
            )

    def assert_whole(self, job: Job, *, attempts: int | None = None, watchers: Sequence[Watcher] = ()) -> int:
        """See that a job succeeded as if nothing had happened; return its number of attempts.

        Every epoch once, in the book and as told; ids without a gap, to a new client and to these watchers;
        exactly one success; attempts that rise by one; the digest that stands for the weights as it must be.
        """
        with self.client() as client:
            ended = client.job(job.id)
            rows = client.metrics(job.id)
            config = parse_config(ended.as_json()["config"])
            (last,) = [found for found in client.artifacts(job.id) if found.name == "last.pt"]
            weights = client.request("GET", f"/v1/jobs/{job.id}/artifacts/{last.name}").json()
        assert ended.status == "succeeded", (ended.status, ended.error, self.transitions(job.id))
        assert attempts in (None, ended.attempt), (attempts, ended.attempt, self.transitions(job.id))
        assert [row["epoch"] for row in rows] == list(range(config.epochs))
        self.assert_trail(job.id)
        seen = self.told(job.id)
        self.assert_told(seen, job.id, epochs=config.epochs)
        for watcher in watchers:
            self.assert_told(watcher.join(), job.id, epochs=config.epochs)
        batches = next(event for event in seen if event.type == "batch").data["batches"]
        assert weights["digest"] == final_digest(config, batches)
        return ended.attempt

    def assert_whole_after(self, job: Job, *, watchers: Sequence[Watcher] = ()) -> int:
        """Wait until a job has ended, and see that it ended well; return its number of attempts."""
        self.await_state(job.id, FINAL)
        return self.assert_whole(job, watchers=watchers)

    def assert_trail(self, job_id: str) -> None:
        """See that a job's attempts rise by one, and that it ended once."""
        trail = self.transitions(job_id)
        claims = [item["attempt"] for item in trail if item["to"] == "running"]
        assert claims == list(range(1, len(claims) + 1)), trail
        assert [item["to"] for item in trail if item["to"] in FINAL] == [trail[-1]["to"]], trail
        outcomes = [item["outcome"] for item in self.attempts(job_id)]
        assert outcomes.count("succeeded") == (trail[-1]["to"] == "succeeded"), outcomes

    def assert_told(self, events: Sequence[Event], job_id: str, *, epochs: int) -> None:
        """See that events have rising ids without a gap, reach the end of the journal, and each epoch once.

        Of an attempt that was lost, the journal may hold lines that nobody was told; none that counts.
        """
        told = [position(event) for event in events]
        assert told, f"{job_id}: nothing was told"
        by_attempt: dict[int, list[int]] = {}
        for attempt, seq in told:
            by_attempt.setdefault(attempt, []).append(seq)
        assert told == sorted(told)
        for attempt, seqs in by_attempt.items():
            assert seqs == list(range(1, len(seqs) + 1)), f"{job_id}: attempt {attempt} has gaps or repeats"
            if (written := self.journal(job_id, attempt)) and attempt == max(by_attempt):
                assert len(seqs) == written[-1]["seq"]
        for event in events:
            if event.type == "resume" and event.data.get("after"):
                assert parse_id(event.data["after"]) in set(told)
        counted = [event.data["epoch"] for event in that_count(events) if event.type == "epoch"]
        assert counted == list(range(epochs)), (job_id, counted, in_short(events))

    def assert_all_whole(self, jobs: Sequence[Job]) -> list[int]:
        """See that all jobs ended well; return how many attempts each took."""
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(self.assert_whole, jobs))
