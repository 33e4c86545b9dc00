"""A run does not grow with its epochs, and pictures are cached once, however many threads read them."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.support.shapes import write_shapes
from yolocore.data import cache
from yolocore.data.files import Sample, scan_yolo_folder
from yolocore.data.images import ImageStore

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 20
WARM_UP = 5  # epochs until allocators, caches and libraries have what they need
LARGEST_GROWTH = 0.02
PATIENCE_S = 100

# A program of its own, so that nothing else is in its memory. All of what is resident is measured, and apart
# from it what is no file (libraries are half of the whole), when an epoch is told: before its checkpoint.
MEASURE = """
import json, sys
from pathlib import Path
from tests.support.runs import do_run, request

def resident_kb():
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    figures = {words[0]: words[1] for words in lines if words and words[0] in ("VmRSS:", "RssAnon:")}
    return int(figures["VmRSS:"]), int(figures["RssAnon:"])

sizes = []
folder, data_yaml, epochs, kind = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
do_run(
    request(folder, data_yaml, epochs=epochs, batch=16, patience=0),
    watch=lambda event: sizes.append(resident_kb()) if event.type == "epoch" else None,
    **{"cache": kind, "cache_dir": folder / "cache", "loader_threads": 2, "keep_checkpoints": 2},
)
print("sizes", json.dumps(sizes))
"""


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_a_run_does_not_grow_with_its_epochs(tmp_path: Path, kind: str) -> None:
    data_yaml = write_shapes(tmp_path / "shapes", num_train=64, num_val=16)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "run"), str(data_yaml), str(EPOCHS), kind],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("sizes "))
    sizes = json.loads(line.removeprefix("sizes "))
    assert len(sizes) == EPOCHS
    for series in zip(*sizes, strict=True):
        growth = max(series[WARM_UP:]) / series[WARM_UP - 1] - 1
        assert growth < LARGEST_GROWTH, f"{series} kB"


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    return scan_yolo_folder(write_shapes(tmp_path / "shapes"))[1]["train"]


def addresses(store: ImageStore) -> list[int]:
    return [store.get(index).__array_interface__["data"][0] for index in range(len(store))]


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_all_threads_read_one_copy(samples: list[Sample], tmp_path: Path, kind: cache.CacheKind) -> None:
    store = ImageStore(samples, 64, cache=kind, cache_dir=tmp_path / "cache", num_threads=4)
    with ThreadPoolExecutor(4) as pool:
        seen = set(pool.map(lambda _: tuple(addresses(store)), range(16)))
    assert len(seen) == 1
    places = sorted(seen.pop())
    assert places[-1] - places[0] == store.size_bytes - store.get(0).nbytes  # and they lie in one array


def mappings(path: Path) -> list[str]:
    """Return the lines of this process's memory map that speak of a file."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line for line in lines if line.endswith(str(path))]


def test_two_stores_of_one_folder_map_the_same_file(samples: list[Sample], tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    stores = [ImageStore(samples, 64, cache="disk", cache_dir=folder) for _ in range(2)]
    (pack,) = folder.glob("*.pack")
    found = mappings(pack)
    assert len(found) == 2 and {line.split()[1] for line in found} == {"r--s"}  # read-only, shared
    assert {line.split()[4] for line in found} == {str(pack.stat().st_ino)}
    assert pack.stat().st_size == stores[0].size_bytes
    np.testing.assert_array_equal(stores[0].get(3), stores[1].get(3))
    del stores
    assert mappings(pack) == []


def test_a_pack_on_disk_takes_no_memory_of_the_process(samples: list[Sample], tmp_path: Path) -> None:
    """Its pages belong to the kernel's file cache, which it gives back before anything is swapped."""
    store = ImageStore(samples, 512, cache="disk", cache_dir=tmp_path / "cache")
    assert store.size_bytes > 100 * mmap.PAGESIZE
    total = sum(int(store.get(index).sum()) for index in range(len(store)))  # touches every page
    (pack,) = (tmp_path / "cache").glob("*.pack")
    entry = Path("/proc/self/smaps").read_text().split(str(pack))[1].split("\n", 1)[1]
    figures = dict(line.split(":") for line in entry.splitlines()[:20] if "kB" in line)
    assert total and figures["Private_Dirty"].split()[0] == figures["Anonymous"].split()[0] == "0"


def test_what_would_make_the_machine_swap_is_refused_before_it_is_loaded(
    samples: list[Sample], tmp_path: Path
) -> None:
    warnings: list[str] = []
    many = samples * 20_000
    store = ImageStore(many, 4096, cache="ram", cache_dir=tmp_path / "cache", warn=warnings.append)
    assert store.size_bytes > 10**12 and store.cache_kind == "none"
    assert ["free memory" in warnings[0], "free disk" in warnings[1]] == [True, True]
    assert list((tmp_path / "cache").iterdir()) == []
