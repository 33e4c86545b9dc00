"""A run's epochs as a TensorBoard event file, under the tags YOLOv5 uses.

The format by hand: a file is a row of TFRecords, each a protocol buffer `Event`. It must not know torch,
TensorFlow, SQL or where the file goes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from api.domain.records import EpochRow

MEDIA_TYPE = "application/octet-stream"
_VERSION = "brain.Event:2"
_LOSSES = ("box", "obj", "cls")
_METRICS = {
    "precision": "metrics/precision",
    "recall": "metrics/recall",
    "map50": "metrics/mAP_0.5",
    "map50_95": "metrics/mAP_0.5:0.95",
}
# Wire types of protocol buffers, and the numbers of the fields of Event, Summary and Summary.Value.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WALL_TIME, _STEP, _FILE_VERSION, _SUMMARY = 1, 2, 3, 5
_VALUE = 1
_TAG, _SIMPLE_VALUE = 1, 2
_CASTAGNOLI = 0x82F63B78
_MASK = 0xA282EAD8


@dataclass(frozen=True)
class Epoch:
    """The figures of one epoch; `step` counts from 0, `wall_time_s` is Unix time, NaN stays NaN."""

    step: int
    wall_time_s: float
    scalars: Mapping[str, float]


def file_name(job_id: str) -> str:
    """Return the name of a job's event file: TensorBoard asks for `tfevents` in it."""
    return f"events.out.tfevents.{job_id}"


def scalars_of(values: Mapping[str, Any]) -> dict[str, float]:
    """Return an epoch's figures by their tags (the columns of results.csv); what was not told is left out.

    A figure that was told as None was NaN or infinite, and becomes NaN.
    """
    found: dict[str, Any] = {}
    for part in ("train", "val"):
        losses = values.get(part)
        if isinstance(losses, Mapping):
            found |= {f"{part}/{name}_loss": losses[name] for name in _LOSSES if name in losses}
    found |= {tag: values[name] for name, tag in _METRICS.items() if name in values}
    found |= {f"x/lr{group}": rate for group, rate in enumerate(list(values.get("lr") or [])[:3])}
    return {tag: math.nan if value is None else float(value) for tag, value in found.items()}


def event_file_of(rows: Iterable[EpochRow], *, created_s: float) -> bytes:
    """Return the event file of a job's epoch rows, those that count, in order."""
    return event_file(
        [Epoch(row.epoch, row.recorded_at or created_s, scalars_of(row.values)) for row in rows],
        created_s=created_s,
    )


def event_file(epochs: Iterable[Epoch], *, created_s: float) -> bytes:
    """Return a whole event file: a record that names the version, then one of each epoch, in order."""
    head = _double(_WALL_TIME, created_s) + _length_delimited(_FILE_VERSION, _VERSION.encode())
    return b"".join([_record(head), *(_record(_event(epoch)) for epoch in epochs)])


def _event(epoch: Epoch) -> bytes:
    summary = b"".join(
        _length_delimited(_VALUE, _length_delimited(_TAG, tag.encode()) + _float(_SIMPLE_VALUE, value))
        for tag, value in epoch.scalars.items()
    )
    head = _double(_WALL_TIME, epoch.wall_time_s) + _key(_STEP, _VARINT) + _varint(epoch.step)
    return head + _length_delimited(_SUMMARY, summary)


def _varint(value: int) -> bytes:
    assert value >= 0
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _key(field: int, wire_type: int) -> bytes:
    return _varint(field << 3 | wire_type)


def _double(field: int, value: float) -> bytes:
    return _key(field, _FIXED64) + struct.pack("<d", value)


def _float(field: int, value: float) -> bytes:
    return _key(field, _FIXED32) + struct.pack("<f", _single(value))


def _single(value: float) -> float:
    """Return a number that single precision can hold; struct refuses larger ones."""
    largest = 3.4028234663852886e38
    return value if math.isnan(value) or abs(value) <= largest else math.copysign(math.inf, value)


def _length_delimited(field: int, data: bytes) -> bytes:
    return _key(field, _BYTES) + _varint(len(data)) + data


def _record(data: bytes) -> bytes:
    """Frame a TFRecord: length (u64), its checksum, the data, their checksum; all little-endian."""
    length = struct.pack("<Q", len(data))
    return length + _checksum(length) + data + _checksum(data)


def _checksum(data: bytes) -> bytes:
    """Return the masked CRC-32C of a TFRecord: rotated right by 15 bits, plus a constant."""
    crc = _crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF)


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (_CASTAGNOLI if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


_CRC_TABLE = _crc_table()


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
