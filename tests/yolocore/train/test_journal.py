"""The journal: whole lines without gaps, batch events that meet become one, a full disk loses nothing."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from yolocore.spec.events import BatchDone, EpochDone, Log, LossParts, PhaseChange, decode_line
from yolocore.train import journal
from yolocore.train.journal import JournalWriter, merge


def batch(index: int, epoch: int = 0, box: float | None = 1.0) -> BatchDone:
    loss = LossParts(box=box, obj=1.0, cls=1.0)
    return BatchDone(epoch=epoch, batch=index, batches=10, loss=loss, lr=[0.1], images_per_s=10.0 + index)


def lines(path: Path) -> list[object]:
    decoded = [decode_line(line) for line in path.read_bytes().splitlines()]
    assert [line.seq for line in decoded] == list(range(1, len(decoded) + 1))
    return [line.event for line in decoded]


def test_events_become_numbered_lines_in_order(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path / "events.jsonl")
    events = [PhaseChange(phase="preparing"), Log(message="a\nb"), PhaseChange(phase="training")]
    for event in events:
        writer.emit(event)
    writer.close()
    writer.close()
    assert lines(tmp_path / "events.jsonl") == events


def test_batch_events_that_meet_become_one(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path / "events.jsonl", flush_s=60)
    writer.emit(batch(0, box=1.0))
    writer.emit(batch(1, box=3.0))
    writer.emit(Log(message="between"))
    writer.emit(batch(2))
    writer.emit(batch(0, epoch=1))
    writer.close()
    first, _, third, fourth = lines(tmp_path / "events.jsonl")
    assert isinstance(first, BatchDone) and (first.batch, first.loss.box) == (1, 2.0)
    assert first.images_per_s == pytest.approx(10.5)
    assert isinstance(third, BatchDone) and isinstance(fourth, BatchDone)
    assert (third.batch, fourth.epoch) == (2, 1)


def test_merging_keeps_unknown_losses_unknown() -> None:
    assert merge(batch(0, box=None), batch(1)).loss.box is None


def test_the_thread_writes_without_being_asked(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    writer = JournalWriter(path, flush_s=0.001)
    writer.emit(Log(message="soon"))
    while not path.stat().st_size:
        os.sched_yield()
    writer.close()


def test_a_disk_that_was_full_for_a_while_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events.jsonl"
    real, refusals = os.write, [3]

    def write(descriptor: int, data: bytes) -> int:
        if refusals[0] > 1:
            refusals[0] -= 1
            return real(descriptor, data[:5])
        if refusals[0] == 1:
            refusals[0] = 0
            raise OSError(errno.ENOSPC, "full")
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    writer = JournalWriter(path, flush_s=0.001)
    writer.emit(Log(message="first"))
    while refusals[0]:
        os.sched_yield()
    writer.emit(Log(message="second"))
    writer.close()
    assert lines(path) == [Log(message="first"), Log(message="second")]


def test_past_the_bound_chatter_is_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "MAX_PENDING", 2)
    writer = JournalWriter(tmp_path / "events.jsonl", flush_s=60)
    parts = LossParts(box=1.0, obj=1.0, cls=1.0)
    done = EpochDone(
        epoch=0, epochs=1, train=parts, val=None, precision=0, recall=0, map50=0, map50_95=0, fitness=0,
        best=False, lr=[], seconds=0,
    )  # fmt: skip
    for event in (Log(message="1"), Log(message="2"), Log(message="3"), done):
        writer.emit(event)
    writer.close()
    kept = lines(tmp_path / "events.jsonl")
    assert kept[:3] == [Log(message="1"), Log(message="2"), done]
    assert getattr(kept[3], "code", None) == "EVENTS_DROPPED"
