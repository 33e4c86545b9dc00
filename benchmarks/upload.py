"""A large raw upload: how much memory it takes of the API, and how fast it is beside plain Python.

The client is as cheap as one can be (one connection, one read and one send a MiB), because both share the
machine. Plain Python reads the same file, hashes it and writes it to the same disk.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from api.client import Client
from benchmarks.bench import Bench
from benchmarks.machine import members, peak_bytes, reset_peak
from benchmarks.stats import MB, Bound, Figure, median, pair_ratios, spread
from examples.service import LocalService

MEMORY_BOUND = Bound(100, "MB")
SPEED_BOUND = Bound(0.5, "of plain Python", at_least=True)
_CHUNK_BYTES = 1 << 20
_ZIP_HEAD = b"PK\x03\x04"


@dataclass(frozen=True)
class Upload:
    """One upload: seconds to the answer; of the API processor time, resident bytes before and at the peak."""

    seconds: float
    processor_s: float
    before_bytes: int
    peak_bytes: int


@dataclass(frozen=True)
class Plain:
    """The same bytes by plain Python: seconds to write and hash, and to bring them to the disk after that."""

    seconds: float
    processor_s: float
    sync_s: float


def measure(bench: Bench) -> list[Figure]:
    """Upload and write in turn, several times; every dataset is deleted as soon as it was measured."""
    size, pairs = (64 << 20, 2) if bench.quick else (1 << 30, 4)
    source = bench.folder / "upload.zip"
    write_random(source, size)
    uploads, plains = [], []
    try:
        for number in range(pairs):
            plains.append(write_plainly(source, bench.folder / "plain.copy"))
            uploads.append(_upload(bench, source, f"upload-{number}"))
    finally:
        source.unlink()
    return [_memory_figure(uploads, size), _speed_figure(uploads, plains, size)]


def write_random(path: Path, size: int) -> None:
    """Write `size` random bytes that begin as a zip does; none of it is sparse."""
    with path.open("wb") as file:
        file.write(_ZIP_HEAD)
        left = size - len(_ZIP_HEAD)
        while left:
            left -= file.write(os.urandom(min(left, _CHUNK_BYTES)))


def write_plainly(source: Path, target: Path) -> Plain:
    """Read, hash and write a file in the plainest way; the copy is removed."""
    began, processor_began = time.perf_counter(), time.process_time()
    digest = hashlib.sha256()
    with source.open("rb") as file, target.open("wb") as copy:
        while chunk := file.read(_CHUNK_BYTES):
            copy.write(chunk)
            digest.update(chunk)
        copy.flush()
        written, processor_s = time.perf_counter(), time.process_time() - processor_began
        os.fsync(copy.fileno())
        synced = time.perf_counter()
    target.unlink()
    return Plain(written - began, processor_s, synced - written)


def _upload(bench: Bench, source: Path, name: str) -> Upload:
    process = members(bench.data_dir)["API"]
    reset_peak(process)
    before, processor_began = process.memory_info().rss, _processor_s(process)
    began = time.perf_counter()
    dataset = _put(bench.service, source, name)
    seconds = time.perf_counter() - began
    found = Upload(seconds, _processor_s(process) - processor_began, before, peak_bytes(process))
    with Client(bench.service.url, bench.service.token) as client:
        client.wait_for_dataset(dataset, timeout_s=300)
        client.request("DELETE", f"/v1/datasets/{dataset}")
    return found


def _processor_s(process: psutil.Process) -> float:
    used = process.cpu_times()
    return float(used.user + used.system)


def _put(service: LocalService, source: Path, name: str) -> str:
    address = urlsplit(service.url)
    assert address.hostname is not None
    connection = http.client.HTTPConnection(
        address.hostname, address.port, timeout=600, blocksize=_CHUNK_BYTES
    )
    headers = {
        "Authorization": f"Bearer {service.token}",
        "Content-Type": "application/octet-stream",
        "Content-Length": str(source.stat().st_size),
    }
    try:
        with source.open("rb") as file:
            connection.request("PUT", f"/v1/datasets?name={name}", body=file, headers=headers)
            response = connection.getresponse()
            body = response.read()
    finally:
        connection.close()
    if response.status != http.client.ACCEPTED:
        raise OSError(f"the upload was answered with {response.status}: {body[:500]!r}")
    return str(json.loads(body)["id"])


def _memory_figure(uploads: list[Upload], size: int) -> Figure:
    peak = max(upload.peak_bytes for upload in uploads) / MB
    before = uploads[0].before_bytes / MB
    growth = max(upload.peak_bytes - upload.before_bytes for upload in uploads) / MB
    shown = f"{peak:.1f} MB peak; {before:.1f} MB before, at most {growth:.1f} MB more in one"
    how = f"RSS peak of the API as the kernel counts it, {len(uploads)} uploads of {size >> 20} MiB"
    return Figure("upload, memory of the API", peak, shown, MEMORY_BOUND, how)


def _speed_figure(uploads: list[Upload], plains: list[Plain], size: int) -> Figure:
    seconds = [upload.seconds for upload in uploads]
    ratios = pair_ratios([plain.seconds for plain in plains], seconds)
    synced = pair_ratios([plain.seconds + plain.sync_s for plain in plains], seconds)
    rates = [size / MB / median(times) for times in (seconds, [plain.seconds for plain in plains])]
    shown = f"{median(ratios):.2f} ({rates[0]:.0f} of {rates[1]:.0f} MB/s)"
    how = (
        f"median of {len(ratios)} pairs in turn, {spread(ratios)}; the upload ends on the disk, plain Python "
        f"in the page cache; with fsync on both sides {median(synced):.2f}; processor time "
        f"{median([upload.processor_s for upload in uploads]):.2f} s of the API, "
        f"{median([plain.processor_s for plain in plains]):.2f} s of plain Python"
    )
    return Figure("upload, speed", median(ratios), shown, SPEED_BOUND, how)
