"""The journal is read in whole lines, by number, forwards and back."""

import json
from pathlib import Path

import pytest

from worker.journal import DamagedJournalError, Journal


def line(seq: int, text: str = "x") -> bytes:
    return json.dumps({"v": 1, "seq": seq, "ts": 1.5, "type": "log", "message": text}).encode() + b"\n"


def test_a_missing_journal_is_an_empty_one(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "events.jsonl")
    assert journal.num_lines() == 0
    assert journal.read(1) == []


def test_half_a_line_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    journal = Journal(path)
    with path.open("ab", buffering=0) as file:
        file.write(line(1) + line(2)[:10])
        assert [event["seq"] for event in journal.read(1)] == [1]
        assert journal.num_lines() == 1
        file.write(line(2)[10:] + line(3, "\N{GREEK SMALL LETTER ALPHA}\u2028"))
        assert [event["seq"] for event in journal.read(2)] == [2, 3]
    assert journal.read(4) == []


def test_reading_goes_back_and_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"".join(line(seq, "y" * (seq % 7)) for seq in range(1, 3001)))
    journal = Journal(path)
    assert [event["seq"] for event in journal.read(2990)] == list(range(2990, 3001))
    assert [event["seq"] for event in journal.read(1, max_lines=3)] == [1, 2, 3]


@pytest.mark.parametrize(
    "damage",
    [b"not json\n", b"[]\n", b"\n", line(7), b'{"seq":2,"ts":1}\n', b'{"seq":2,"type":"x","y":NaN}\n'],
    ids=range(6),
)
def test_a_line_that_is_not_the_event_is_named(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line(1) + damage)
    with pytest.raises(DamagedJournalError, match="line 2"):
        Journal(path).read(1)
