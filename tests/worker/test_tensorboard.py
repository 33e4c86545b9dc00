"""The TensorBoard file, read back by a reader that shares nothing with the writer."""

from __future__ import annotations

import math
import struct
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from api.domain.records import EpochRow
from api.jobs.table import COLUMNS
from worker.tensorboard import Epoch, event_file, event_file_of, file_name, scalars_of

VALUES: dict[str, Any] = {
    "epoch": 0,
    "train": {"box": 0.11, "obj": 0.02, "cls": None},
    "val": {"box": 0.09, "obj": 0.03, "cls": 0.01},
    "precision": 0.5,
    "recall": 0.25,
    "map50": 0.125,
    "map50_95": 0.0625,
    "fitness": 0.07,
    "lr": [0.1, 0.01, 0.001],
}


def crc32c(data: bytes) -> int:
    """Divide bit by bit, as the definition says (RFC 3720, B.4: reflected, 0x1EDC6F41)."""
    crc = 0xFFFFFFFF
    for byte in data:
        for bit in range(8):
            low = (crc ^ byte >> bit) & 1
            crc >>= 1
            if low:
                crc ^= int(f"{0x1EDC6F41:032b}"[::-1], 2)
    return crc ^ 0xFFFFFFFF


def unmasked(stored: int) -> int:
    rotated = (stored - 0xA282EAD8) % 2**32
    return (rotated << 15 | rotated >> 17) % 2**32


def records(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        (of_length,) = struct.unpack_from("<I", data, at + 8)
        body = data[at + 12 : at + 12 + length]
        (of_body,) = struct.unpack_from("<I", data, at + 12 + length)
        assert unmasked(of_length) == crc32c(data[at : at + 8])
        assert unmasked(of_body) == crc32c(body)
        assert len(body) == length
        yield body
        at += 16 + length


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 0x80:
            return value, at


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    at = 0
    value: Any
    while at < len(data):
        key, at = varint(data, at)
        match key & 7:
            case 0:
                value, at = varint(data, at)
            case 1:
                (value,), at = struct.unpack_from("<d", data, at), at + 8
            case 5:
                (value,), at = struct.unpack_from("<f", data, at), at + 4
            case 2:
                length, at = varint(data, at)
                value, at = data[at : at + length], at + length
            case kind:
                raise AssertionError(f"wire type {kind}")
        yield key >> 3, value


def scalars(event: bytes) -> dict[str, float]:
    (summary,) = [value for number, value in fields(event) if number == 5]
    found = [dict(fields(value)) for number, value in fields(summary) if number == 1]
    return {value[1].decode(): value[2] for value in found}


def test_the_reader_knows_the_checksum() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA


def test_what_is_written_is_read_back() -> None:
    epochs = [
        Epoch(step, 1_700_000_000.25 + step, scalars_of({**VALUES, "epoch": step})) for step in (0, 1, 300)
    ]
    head, *rest = records(event_file(epochs, created_s=1_700_000_000.0))
    assert dict(fields(head)) == {1: 1_700_000_000.0, 3: b"brain.Event:2"}
    assert [dict(fields(event))[1] for event in rest] == [epoch.wall_time_s for epoch in epochs]
    assert [dict(fields(event))[2] for event in rest] == [0, 1, 300]
    for event in rest:
        told = scalars(event)
        assert set(told) == set(COLUMNS) - {"epoch"}, "tags are the columns of results.csv"
        assert told["train/box_loss"] == pytest.approx(0.11)
        assert math.isnan(told["train/cls_loss"])
        assert told["metrics/mAP_0.5:0.95"] == 0.0625
        assert [told[f"x/lr{group}"] for group in range(3)] == pytest.approx([0.1, 0.01, 0.001])


def test_the_rows_of_a_job_become_events() -> None:
    rows = [EpochRow(epoch, VALUES, recorded_at=1000.0 + epoch) for epoch in range(2)]
    _, *events = records(event_file_of(rows, created_s=999.0))
    assert [(dict(fields(event))[2], dict(fields(event))[1]) for event in events] == [
        (0, 1000.0),
        (1, 1001.0),
    ]


def test_what_was_not_told_is_left_out() -> None:
    told = scalars_of({"train": {"box": 1.0, "obj": 2.0, "cls": 3.0}, "val": None, "lr": [0.5]})
    assert told == {"train/box_loss": 1.0, "train/obj_loss": 2.0, "train/cls_loss": 3.0, "x/lr0": 0.5}


def test_numbers_too_large_for_single_precision_become_infinite() -> None:
    _, event = records(event_file([Epoch(0, 0.0, {"a": 1e300, "b": -1e300, "c": math.inf})], created_s=0.0))
    assert scalars(event) == {"a": math.inf, "b": -math.inf, "c": math.inf}


def test_a_run_without_epochs_has_a_file_all_the_same() -> None:
    assert len(list(records(event_file([], created_s=1.0)))) == 1
    assert "tfevents" in file_name("job_1")


def test_neither_torch_nor_tensorflow_is_loaded() -> None:
    code = "import sys, worker.tensorboard; print({'torch', 'tensorflow', 'numpy'} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"
