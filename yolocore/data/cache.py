"""One packed array of resized pictures, in RAM or as a memory-mapped file that processes share.

A file is named by a hash of what it holds, written beside its final place and renamed, so a reader finds it
whole or not at all. It knows nothing of samples or decoding; whoever wants a pack loads its pictures.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np

from yolocore.data.pixels import ImageArray
from yolocore.errors import DiskFullError

CacheKind = Literal["none", "ram", "disk"]
Progress = Callable[[int, int], None]
Load = Callable[[int], ImageArray]

HEADROOM = 0.8  # a cache may take this share of what is free


def choose_cache(
    wanted: CacheKind, size_bytes: int, cache_dir: Path | None, warn: Callable[[str], None]
) -> CacheKind:
    """Return the cache that fits: RAM steps down to disk, disk to none, each with a warning."""
    if wanted == "ram":
        free = available_memory_bytes()
        if size_bytes <= free * HEADROOM:
            return "ram"
        warn(f"image cache: {_mb(size_bytes)} do not fit into {_mb(free)} of free memory")
        wanted = "disk"
    if wanted == "disk":
        if cache_dir is None:
            warn("image cache: there is no folder to cache on disk; pictures are decoded each time")
            return "none"
        cache_dir.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(cache_dir).free
        if size_bytes <= free * HEADROOM:
            return "disk"
        warn(f"image cache: {_mb(size_bytes)} do not fit into {_mb(free)} of free disk")
    return "none"


def available_memory_bytes() -> int:
    """Return how much memory may be taken without swapping: the kernel's figure, capped by the cgroup."""
    free = _meminfo_available()
    limit, used = _read_int("/sys/fs/cgroup/memory.max"), _read_int("/sys/fs/cgroup/memory.current")
    if limit is not None and used is not None:
        free = min(free, max(limit - used, 0))
    return free


def pack_in_memory(
    shapes_hw: Sequence[tuple[int, int]], load: Load, *, num_threads: int, progress: Progress
) -> list[ImageArray]:
    """Load all pictures into one array; return read-only views of it."""
    data = np.empty(packed_bytes(shapes_hw), dtype=np.uint8)
    writable = _views(data, shapes_hw)

    def store(index: int, image: ImageArray) -> None:
        writable[index][:] = image

    _load_all(len(shapes_hw), load, store, num_threads, progress)
    data.setflags(write=False)
    return _views(data, shapes_hw)


def pack_on_disk(
    shapes_hw: Sequence[tuple[int, int]], load: Load, path: Path, *, num_threads: int, progress: Progress
) -> list[ImageArray]:
    """Map the pack at `path`, making it first if it is not there; return read-only views.

    One process at a time makes it, the others wait and use it. Raises DiskFullError, and what `load` raises.
    """
    size_bytes = max(packed_bytes(shapes_hw), 1)
    with _lock(path.with_suffix(".lock")):
        if not path.is_file() or path.stat().st_size != size_bytes:
            _write(shapes_hw, load, path, num_threads, progress)
    mapped: ImageArray = np.memmap(path, dtype=np.uint8, mode="r", shape=(size_bytes,)).view(np.ndarray)
    return _views(mapped, shapes_hw)


def packed_bytes(shapes_hw: Sequence[tuple[int, int]]) -> int:
    """Return the size of a pack of pictures of these shapes."""
    return sum(height * width * 3 for height, width in shapes_hw)


def _views(data: ImageArray, shapes_hw: Sequence[tuple[int, int]]) -> list[ImageArray]:
    views = []
    start = 0
    for height, width in shapes_hw:
        end = start + height * width * 3
        views.append(data[start:end].reshape(height, width, 3))
        start = end
    return views


def _load_all(
    count: int, load: Load, store: Callable[[int, ImageArray], None], num_threads: int, progress: Progress
) -> None:
    executor = ThreadPoolExecutor(max(num_threads, 1), thread_name_prefix="image-cache")
    try:
        results = executor.map(lambda index: store(index, load(index)), range(count))
        for done, _ in enumerate(results, start=1):
            progress(done, count)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _write(
    shapes_hw: Sequence[tuple[int, int]], load: Load, path: Path, num_threads: int, progress: Progress
) -> None:
    offsets = np.cumsum([0] + [height * width * 3 for height, width in shapes_hw]).tolist()
    handle, name = tempfile.mkstemp(prefix=path.stem, suffix=".part", dir=path.parent)

    def store(index: int, image: ImageArray) -> None:
        # Plain writes: a full disk is an error here, but would be a bus error in a mapping.
        rest, offset = np.ascontiguousarray(image).data.cast("B"), offsets[index]
        with _named_disk_errors(path):
            while rest:
                written = os.pwrite(handle, rest, offset)
                rest, offset = rest[written:], offset + written

    try:
        with _named_disk_errors(path):
            os.ftruncate(handle, max(offsets[-1], 1))
        _load_all(len(shapes_hw), load, store, num_threads, progress)
        with _named_disk_errors(path):
            os.fsync(handle)
            Path(name).replace(path)
    finally:
        os.close(handle)
        Path(name).unlink(missing_ok=True)


@contextmanager
def _named_disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"the image cache cannot be written: {error.strerror}"
        raise DiskFullError(message, place=str(path)) from error


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _meminfo_available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _read_int(path: str) -> int | None:
    try:
        text = Path(path).read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.0f} MB"
