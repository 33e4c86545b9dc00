"""Where events lie after they happened: the journals of a job's attempts, and the end of its stream.

Journals are complete and on disk, in the attempt's folder or archived among the blobs; the stream is near and
bounded. Both are read by (attempt, seq), so that
what is in both is told once. It must not know watchers or HTTP.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import anyio.to_thread
import redis.asyncio
from redis.exceptions import RedisError

from api.domain import wire
from api.domain.wire import EventId
from api.events.frames import Frame

FIRST = EventId(0, 0)
LAST = EventId(10**17, 10**17)
JOURNAL_NAME = "events.jsonl"
_PAGE = 500
_CONNECTIONS = 6
# Between two batches lie at most a few lines of an epoch's end.
_LOOK_BACK = 16
_SEQ = re.compile(rb'\{"v":\d+,"seq":(\d+),')


class WireEvent:
    """An event ready to be sent: its id, type and values, and their one-line JSON, made when asked for."""

    __slots__ = ("_data", "_frame", "id", "type", "values")

    def __init__(self, event_id: EventId, values: Mapping[str, Any]) -> None:
        self.id = event_id
        self.type = str(values["type"])
        self.values = values
        self._data: str | None = None
        self._frame: Frame | None = None

    @property
    def data(self) -> str:
        """The JSON; made once for all who send it."""
        if self._data is None:
            self._data = wire.dumps(self.values)
        return self._data

    @property
    def frame(self) -> Frame:
        """The message that tells it; one for all watchers."""
        if self._frame is None:
            self._frame = Frame(self.type, self.data, id=str(self.id))
        return self._frame


def _from_stream(stream_id: bytes, fields: Mapping[bytes, bytes]) -> WireEvent | None:
    """Read an entry; None for one that is no event."""
    try:
        event = WireEvent(EventId.parse(stream_id.decode()), wire.stream_event(fields))
        return event if event.data else None
    except (wire.WireError, ValueError):
        return None


class LiveStreams:
    """The streams of all jobs in Redis, read only; raises RedisError or OSError when it is away.

    `up` says whether Redis answered last; whoever notices a change sets it.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        # RESP2: the shape of answers does not depend on the server's version.
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            url,
            protocol=2,
            max_connections=_CONNECTIONS,
            timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            socket_timeout=timeout_s,
        )
        # Any: redis-py types each answer as a union over all protocols and decodings.
        self._client: Any = redis.asyncio.Redis.from_pool(pool)
        self.up = False

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def ping(self) -> None:
        """Ask whether Redis answers."""
        await self._client.ping()

    async def ends(self, jobs: Sequence[str]) -> list[str]:
        """Return the last id of each job's stream; 0-0 where there is none."""
        pipeline = self._client.pipeline(transaction=False)
        for job in jobs:
            pipeline.xrevrange(wire.events_key(job), count=1)
        answers = await pipeline.execute()
        return [answer[0][0].decode() if answer else str(FIRST) for answer in answers]

    async def read(
        self, cursors: Mapping[str, str], *, block_ms: int
    ) -> list[tuple[str, str, list[WireEvent]]]:
        """Wait for events behind the cursors; return (job, new cursor, events) where there are any."""
        keys = {wire.events_key(job): job for job in cursors}
        positions = {key: cursors[job] for key, job in keys.items()}
        answer = await self._client.xread(positions, count=_PAGE, block=block_ms)
        found = []
        for key, entries in answer or []:
            events = [event for entry in entries if (event := _from_stream(*entry)) is not None]
            found.append((keys[key.decode()], entries[-1][0].decode(), events))
        return found

    async def latest(self, jobs: Sequence[str], kind: str) -> dict[str, WireEvent]:
        """Return the last event of a type of each job, where it is among the last few of its stream."""
        pipeline = self._client.pipeline(transaction=False)
        for job in jobs:
            pipeline.xrevrange(wire.events_key(job), count=_LOOK_BACK)
        found = {}
        for job, entries in zip(jobs, await pipeline.execute(), strict=True):
            events = (_from_stream(*entry) for entry in entries)
            event = next((one for one in events if one is not None and one.type == kind), None)
            if event is not None:
                found[job] = event
        return found

    async def range(self, job: str, after: EventId, until: EventId) -> AsyncIterator[WireEvent]:
        """Give the events with after < id < until that the stream still has."""
        position = after
        while True:
            entries = await self._client.xrange(
                wire.events_key(job), min=f"({position}", max=f"({until}", count=_PAGE
            )
            for stream_id, fields in entries:
                event = _from_stream(stream_id, fields)
                position = EventId.parse(stream_id.decode())
                if event is not None:
                    yield event
            if len(entries) < _PAGE:
                return


class Journals:
    """The journals in the attempts' folders of one job; remembers how far each was read.

    `archived` says where the journal of an attempt lies whose folder may be gone.
    """

    def __init__(self, attempts_dir: Path, job: str, archived: Mapping[int, Path] | None = None) -> None:
        self._folder = attempts_dir
        self._job = job
        self._archived = archived or {}
        self._read: dict[int, tuple[int, int]] = {}

    def attempts(self) -> list[int]:
        """Return the numbers of the attempts that have a journal here."""
        found = [path.parent.name for path in self._folder.glob(f"*/{JOURNAL_NAME}")]
        return sorted({*(int(name) for name in found if name.isdigit()), *self._archived})

    def page(
        self, attempt: int, after_seq: int, until: EventId, *, kind: str | None = None
    ) -> list[WireEvent]:
        """Return the next events of one attempt, of all types or of one.

        A full page says that there may be more; a line that is still growing is left out.
        """
        wanted = b"" if kind is None else f'"type":"{kind}"'.encode()
        seq, offset = self._read.get(attempt, (0, 0))
        if seq > after_seq:
            seq, offset = 0, 0
        events: list[WireEvent] = []
        try:
            file = self._open(attempt)
        except FileNotFoundError:
            return []
        with file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n") or len(events) == _PAGE:
                    break
                seq = self._line_seq(line, seq)
                if EventId(attempt, seq) >= until:
                    break
                offset += len(line)
                is_wanted = seq > after_seq and wanted in line
                event = self._decode(line, attempt, to_send=kind is None) if is_wanted else None
                if event is not None and kind in (None, event.type):
                    events.append(event)
                self._read[attempt] = (seq, offset)
        return events

    def _open(self, attempt: int) -> BinaryIO:
        try:
            return (self._folder / str(attempt) / JOURNAL_NAME).open("rb")
        except FileNotFoundError:
            if attempt not in self._archived:
                raise
            return self._archived[attempt].open("rb")

    @staticmethod
    def _line_seq(line: bytes, before: int) -> int:
        match = _SEQ.match(line)
        return int(match[1]) if match else before

    def _decode(self, line: bytes, attempt: int, *, to_send: bool) -> WireEvent | None:
        try:
            values = wire.journal_event(line, job_id=self._job, attempt=attempt)
            event = WireEvent(EventId.parse(values["id"]), values)
            # Here, in a thread, rather than where the watchers are served.
            return event if not to_send or event.data else None
        except (wire.WireError, ValueError):
            # A line torn by a crash; its attempt went no further.
            return None


class History:
    """All events of one job that can still be found, in order."""

    def __init__(
        self,
        attempts_dir: Path,
        job: str,
        streams: LiveStreams,
        archived: Mapping[int, Path] | None = None,
    ) -> None:
        self._journals = Journals(attempts_dir, job, archived)
        self._streams = streams
        self._job = job

    async def between(
        self, after: EventId, until: EventId = LAST, *, kind: str | None = None
    ) -> AsyncGenerator[WireEvent]:
        """Give the events with after < id < until: of each attempt the journal, then what the stream adds.

        With a `kind` only those of that type.
        """
        last = after
        for attempt in await anyio.to_thread.run_sync(self._journals.attempts):
            if not after.attempt <= attempt <= until.attempt:
                continue
            async for event in self._from_stream(last, min(EventId(attempt, 0), until), kind):
                yield event
                last = event.id
            async for event in self._from_journal(attempt, last, until, kind):
                yield event
                last = event.id
        async for event in self._from_stream(last, until, kind):
            yield event

    async def _from_journal(
        self, attempt: int, after: EventId, until: EventId, kind: str | None
    ) -> AsyncIterator[WireEvent]:
        seq = after.seq if after.attempt == attempt else 0
        while True:
            read = partial(self._journals.page, attempt, seq, until, kind=kind)
            events = await anyio.to_thread.run_sync(read)
            for event in events:
                yield event
            if len(events) < _PAGE:
                return
            seq = events[-1].id.seq

    async def _from_stream(
        self, after: EventId, until: EventId, kind: str | None
    ) -> AsyncIterator[WireEvent]:
        if not self._streams.up or EventId(after.attempt, after.seq + 1) >= until:
            return
        try:
            async for event in self._streams.range(self._job, after, until):
                if kind in (None, event.type):
                    yield event
        except (RedisError, OSError):
            return
