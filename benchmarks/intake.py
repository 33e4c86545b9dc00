"""How fast pictures are checked, compared and made small on their way in, beside decoding them alone.

Run as `python -m benchmarks.intake FOLDER PAIRS` it does the work on the pictures of the folder and prints a
line of JSON; `measure` starts that in a process of its own, whose memory is counted.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import psutil
from PIL import Image

from benchmarks.bench import PACKAGE_ROOT, Bench, one_thread
from benchmarks.machine import peak_bytes, reset_peak
from benchmarks.stats import MB, Bound, Figure, median, pair_ratios, spread
from worker.ingest.images import check_all
from worker.ingest.limits import Limits
from worker.ingest.thumbnails import Spool

SPEED_BOUND = Bound(300, "images/s", at_least=True)
RATIO_BOUND = Bound(0.6, "of plain decoding", at_least=True)
SIZE = (640, 480)
_NUM_SOURCES = 100
_DATASETS = Path(os.environ.get("TRAINSHED_DATASETS") or PACKAGE_ROOT.parent / "shared" / "datasets")


def measure(bench: Bench) -> list[Figure]:
    """Make pictures, then check and merely decode them in turn, several times."""
    count, pairs = (200, 2) if bench.quick else (2000, 6)
    folder = bench.folder / "pictures"
    content = make_pictures(folder, count)
    asked = subprocess.run(
        [sys.executable, "-m", "benchmarks.intake", str(folder), str(pairs)],
        cwd=PACKAGE_ROOT,
        env=one_thread(bench),
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(asked.stdout)
    ours, plain = found["ours"], found["plain"]
    speeds = [count / wall for wall, _ in ours]
    ratios = pair_ratios([wall for wall, _ in plain], [wall for wall, _ in ours])
    cpu_ratio = median(pair_ratios([cpu for _, cpu in plain], [cpu for _, cpu in ours]))
    cpu_ms = median([cpu for _, cpu in ours]) / count * 1000
    size = f"{count} JPEGs of {SIZE[0]} x {SIZE[1]}, {content}, {Limits().threads} threads"
    how = f"median of {pairs} passes over {size}, {spread(speeds, 0)}; processor time {cpu_ms:.2f} ms each"
    against = f"median of {pairs} pairs in turn, {spread(ratios)}; of processor time {cpu_ratio:.2f}"
    peak = f"whole process, of it {found['before_bytes'] / MB:.0f} MB before the first picture"
    return [
        Figure("intake, pictures", median(speeds), f"{median(speeds):.0f} images/s", SPEED_BOUND, how),
        Figure("intake, beside cv2.imdecode", median(ratios), f"{median(ratios):.2f}", RATIO_BOUND, against),
        Figure("intake, memory", 0.0, f"{found['peak_bytes'] / MB:.0f} MB peak", None, peak),
    ]


def make_pictures(folder: Path, count: int) -> str:
    """Write `count` JPEGs, each with other bytes, and return in words what they show.

    Photographs where a dataset is at hand, because noise compresses badly and decodes slowly; else gradients.
    """
    folder.mkdir()
    sources = _photographs() or _gradients()
    for number in range(count):
        pixels = sources[number % len(sources)].copy()
        pixels[0, 0] = (number % 256, number // 256 % 256, 0)
        done, content = cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, 90))
        assert done
        (folder / f"{number:06}.jpg").write_bytes(content.tobytes())
    return "photographs" if len(sources) == _NUM_SOURCES else "gradients"


def _photographs() -> list[np.ndarray]:
    """Return photographs of the dataset nearest at hand as BGR, resized; none where there is no dataset."""
    path = _DATASETS / "aquarium_roboflow_yolov5.zip"
    if not path.is_file():
        return []
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))[:_NUM_SOURCES]
        pictures = [Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in names]
    return [np.asarray(picture.resize(SIZE))[:, :, ::-1] for picture in pictures]


def _gradients() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    coarse = [random.integers(0, 255, (24, 32, 3), np.uint8) for _ in range(20)]
    return [np.asarray(Image.fromarray(each).resize(SIZE, Image.Resampling.BICUBIC)) for each in coarse]


def _checked(paths: dict[str, Path], spool_path: Path) -> None:
    with Spool(spool_path) as spool:
        facts = check_all(paths, Limits(), spool)
    assert all(fact.problem is None for fact in facts.values())


def _decoded(paths: dict[str, Path]) -> None:
    def decode(path: Path) -> bool:
        return cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR) is not None

    with ThreadPoolExecutor(max_workers=Limits().threads) as pool:
        assert all(pool.map(decode, paths.values()))


def _timed(work: Callable[[], None]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def main(folder: Path, pairs: int) -> None:
    """Do the pairs, whichever side first in turn, after one pass of each that does not count."""
    paths = {path.name: path for path in sorted(folder.iterdir())}
    cv2.setNumThreads(1)  # as the ingest does: two pictures at once, not two threads for one
    itself = psutil.Process()
    before = itself.memory_info().rss
    reset_peak(itself)
    spool_path = folder.parent / "spool"
    sides: dict[str, Callable[[], None]] = {
        "ours": lambda: _checked(paths, spool_path),
        "plain": lambda: _decoded(paths),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for number in range(-1, pairs):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            took = _timed(sides[name])
            if number >= 0:
                times[name].append(took)
    print(json.dumps(times | {"before_bytes": before, "peak_bytes": peak_bytes(itself)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
