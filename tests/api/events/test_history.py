"""What can still be found of a run: journals and stream together, each event once, in order."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from api.domain.wire import EventId
from api.events.history import FIRST, LAST, History, Journals, LiveStreams
from tests.support.events import RunOnDisk, journal_line
from tests.support.valkey import ValkeyProcess, running_valkey


def found(
    run: RunOnDisk, url: str, after: EventId = FIRST, until: EventId = LAST, *, up: bool = True
) -> list[str]:
    async def collect() -> list[str]:
        streams = LiveStreams(url, timeout_s=5)
        streams.up = up
        try:
            history = History(run.attempts_dir, run.job, streams)
            return [str(event.id) async for event in history.between(after, until)]
        finally:
            await streams.close()

    return asyncio.run(collect())


@pytest.fixture(scope="module")
def valkey():
    with running_valkey() as server:
        yield server


@pytest.fixture
def run(tmp_path: Path, valkey: ValkeyProcess) -> RunOnDisk:
    with valkey.client() as client:
        client.flushall()
    return RunOnDisk(tmp_path, "job_1")


def ids(attempt: int, seqs: range) -> list[str]:
    return [f"{attempt}-{seq}" for seq in seqs]


def test_a_job_without_attempts_has_no_history(run: RunOnDisk, valkey: ValkeyProcess) -> None:
    assert found(run, valkey.url) == []


def test_journal_and_stream_tell_each_event_once(run: RunOnDisk, valkey: ValkeyProcess) -> None:
    run.write(1, range(1, 1201))
    with valkey.client() as client:
        run.ship(client, 1, range(1000, 1211))
    assert found(run, valkey.url) == ids(1, range(1, 1211))


def test_attempts_follow_each_other_wherever_they_are_kept(run: RunOnDisk, valkey: ValkeyProcess) -> None:
    """The first attempt was on a machine whose journals are not here; the second's journal is."""
    with valkey.client() as client:
        run.ship(client, 1, range(1, 6))
        run.write(2, range(1, 4))
        run.ship(client, 2, range(1, 3))
        run.ship(client, 3, range(1, 3))
    assert found(run, valkey.url) == ids(1, range(1, 6)) + ids(2, range(1, 4)) + ids(3, range(1, 3))


@pytest.mark.parametrize(
    ("after", "until", "expected"),
    [
        (EventId(1, 2), LAST, ["1-3", "2-1", "2-2"]),
        (EventId(1, 3), LAST, ["2-1", "2-2"]),
        (EventId(2, 2), LAST, []),
        (EventId(9, 9), LAST, []),
        (FIRST, EventId(2, 2), ["1-1", "1-2", "1-3", "2-1"]),
        (EventId(1, 1), EventId(1, 3), ["1-2"]),
    ],
)
def test_bounds_are_exclusive(
    run: RunOnDisk, valkey: ValkeyProcess, after: EventId, until: EventId, expected: list[str]
) -> None:
    run.write(1, range(1, 4))
    run.write(2, range(1, 3))
    assert found(run, valkey.url, after, until) == expected


def test_without_redis_the_journals_are_the_history(run: RunOnDisk) -> None:
    run.write(1, range(1, 4))
    assert found(run, "unix:///nowhere", up=False) == ids(1, range(1, 4))
    assert found(run, "unix:///nowhere", up=True) == ids(1, range(1, 4))


def test_a_growing_line_is_read_when_it_is_whole(tmp_path: Path) -> None:
    run = RunOnDisk(tmp_path, "job_1")
    run.write(1, range(1, 3))
    journal = run.attempts_dir / "1" / "events.jsonl"
    line = journal_line(3)
    with journal.open("a") as file:
        file.write(line[:10])
    journals = Journals(run.attempts_dir, run.job)
    assert [event.id.seq for event in journals.page(1, 0, LAST)] == [1, 2]
    assert journals.page(1, 2, LAST) == []
    with journal.open("a") as file:
        file.write(line[10:])
    assert [event.id.seq for event in journals.page(1, 2, LAST)] == [3]
    assert [event.id.seq for event in journals.page(1, 0, LAST)] == [1, 2, 3], "an earlier place starts anew"


def test_a_torn_line_hides_nothing_else(tmp_path: Path) -> None:
    run = RunOnDisk(tmp_path, "job_1")
    run.write(1, range(1, 2))
    with (run.attempts_dir / "1" / "events.jsonl").open("a") as file:
        file.write('{"v":1,"seq":2,"ts"\n\x00\x00\n')
    run.write(1, range(3, 4))
    assert [event.id.seq for event in Journals(run.attempts_dir, run.job).page(1, 0, LAST)] == [1, 3]
