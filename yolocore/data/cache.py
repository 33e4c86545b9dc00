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
# Files of limit and use, and the entry of memory.stat for file cache that is not in use: cgroup 2, cgroup 1.
_CGROUPS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)


def choose_cache(
    wanted: CacheKind,
    size_bytes: int,
    path: Path | None,
    warn: Callable[[str], None],
    *,
    free_memory: Callable[[], int] | None = None,
) -> CacheKind:
    """Return the cache that fits: RAM steps down to disk, disk to none, each with a warning.

    `path` is where a pack on disk would lie, or already lies; None if there is no folder for it.
    """
    if wanted == "ram":
        free = (free_memory or available_memory_bytes)()
        if size_bytes <= free * HEADROOM:
            return "ram"
        warn(f"image cache: {_mb(size_bytes)} do not fit into {_mb(free)} of free memory")
        wanted = "disk"
    return "none" if wanted == "none" else _choose_disk(size_bytes, path, warn)


def _choose_disk(size_bytes: int, path: Path | None, warn: Callable[[str], None]) -> CacheKind:
    if path is None:
        warn("image cache: there is no folder to cache on disk; pictures are decoded each time")
        return "none"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if _is_whole(path, size_bytes):  # it takes no more space than it has
            return "disk"
        free = shutil.disk_usage(path.parent).free
    except OSError as error:
        warn(f"image cache: its folder cannot be used: {error.strerror}; pictures are decoded each time")
        return "none"
    if size_bytes <= free * HEADROOM:
        return "disk"
    warn(f"image cache: {_mb(size_bytes)} do not fit into {_mb(free)} of free disk")
    return "none"


def available_memory_bytes(
    meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")
) -> int:
    """Return how much memory may be taken without swapping: the kernel's figure, capped by the cgroup.

    What the cgroup counts of unused file cache is given back when memory is asked for, so it is free.
    """
    free = _meminfo_available(meminfo)
    for limit_name, used_name, cache_name in _CGROUPS:
        limit, used = _read_int(cgroup / limit_name), _read_int(cgroup / used_name)
        if limit is not None and used is not None:
            cached = _read_entry((cgroup / used_name).with_name("memory.stat"), cache_name)
            free = min(free, max(limit - max(used - cached, 0), 0))
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
    with _lock(path):
        if not _is_whole(path, size_bytes):
            _remove_leftovers(path)
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
    with _named_disk_errors(path):
        file = path.with_suffix(".lock").open("wb")
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_whole(path: Path, size_bytes: int) -> bool:
    return path.is_file() and path.stat().st_size == max(size_bytes, 1)


def _remove_leftovers(path: Path) -> None:
    """Delete what makers of this pack left when they were killed; only one at a time holds the lock."""
    for left in path.parent.glob(f"{path.stem}*.part"):
        left.unlink(missing_ok=True)


def _meminfo_available(meminfo: Path) -> int:
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _read_int(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _read_entry(path: Path, name: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0)


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.0f} MB"
