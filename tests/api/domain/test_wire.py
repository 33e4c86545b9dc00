"""Envelopes survive the way, and what is no event is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.domain import wire
from api.domain.wire import EventId, WireError

NUMBERS = st.integers(0, 10**17)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
TAKEN = {"v", "job", "id", "ts", "type", "seq"}


@given(NUMBERS, NUMBERS)
def test_event_id_round_trip(attempt: int, seq: int) -> None:
    assert EventId.parse(str(EventId(attempt, seq))) == EventId(attempt, seq)


def test_event_ids_sort_by_attempt_then_seq() -> None:
    ids = [EventId(2, 1), EventId(1, 10), EventId(1, 9)]
    assert sorted(ids) == [EventId(1, 9), EventId(1, 10), EventId(2, 1)]


@pytest.mark.parametrize(
    "text", ["", "1", "1-", "-1", "1-2-3", "a-1", "1-\u0661", " 1-2", "1-+2", "9" * 30 + "-1"]
)
def test_not_an_event_id(text: str) -> None:
    with pytest.raises(WireError):
        EventId.parse(text)


@given(
    st.dictionaries(st.text().filter(lambda name: name not in TAKEN), VALUES, max_size=4),
    st.integers(1, 10**9),
    st.sampled_from(["batch", "epoch", "log"]),
)
def test_journal_to_stream_and_back(payload: dict[str, object], seq: int, kind: str) -> None:
    line = json.dumps({"v": 1, "seq": seq, "ts": 5.5, "type": kind, **payload}).encode()
    event = wire.journal_event(line, job_id="job_1", attempt=3)
    assert event == {**payload, "v": 1, "job": "job_1", "id": f"3-{seq}", "ts": 5.5, "type": kind}
    fields = wire.stream_fields(event)
    assert wire.stream_event(fields) == event
    assert wire.stream_event({key.encode(): value.encode() for key, value in fields.items()}) == event


def test_resume_tells_its_attempt() -> None:
    line = '{"v":1,"seq":1,"ts":1,"type":"resume","epoch":3,"batch":0,"after":"1-220"}'
    event = wire.journal_event(line, job_id="job_1", attempt=2)
    assert (event["attempt"], event["after"], event["id"]) == (2, "1-220", "2-1")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[]",
        "3",
        '{"seq":1}',
        '{"seq":0,"type":"a","ts":1}',
        '{"seq":1,"type":2,"ts":1}',
        '{"seq":1,"type":"a"}',
    ],
)
def test_no_journal_event(line: str) -> None:
    with pytest.raises(WireError):
        wire.journal_event(line, job_id="j", attempt=1)


@pytest.mark.parametrize("fields", [{}, {"event": "{"}, {b"event": b"[]"}, {"event": "{}"}])
def test_no_stream_event(fields: dict[object, object]) -> None:
    with pytest.raises(WireError):
        wire.stream_event(fields)


def test_names() -> None:
    assert wire.events_key("job_1") == "trainshed:events:job_1"
    assert wire.queue_key("train.cpu") == "trainshed:train.cpu"
    assert wire.queue_task("ingest") == "trainshed.ingest"
    assert wire.queue_task("train.g1") == "trainshed.train"
