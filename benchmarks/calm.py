"""How fast the API answers while a large dataset is being taken in, beside how fast it answers at rest."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable

from api.client import Client
from benchmarks.bench import Bench
from benchmarks.intake import make_pictures
from benchmarks.stats import Bound, Figure, median, percentile

BOUND = Bound(50.0, "ms")
_PAUSE_S = 0.02
_READY_WITHIN_S = 600.0


def measure(bench: Bench) -> list[Figure]:
    """Ask for a page of jobs again and again, at rest and for as long as an ingest goes on."""
    count = 300 if bench.quick else 10_000
    folder, archive = bench.folder / "calm", bench.folder / "calm.zip"
    content = make_pictures(folder, count)
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted(folder.iterdir()):
            packed.write(path, f"images/train/{path.name}")
            packed.writestr(f"labels/train/{path.stem}.txt", "0 0.5 0.5 0.2 0.2\n")
        packed.writestr("data.yaml", "train: images/train\nval: images/train\nnames: [thing]\n")
    with Client(bench.service.url, bench.service.token) as client:
        rested = _asked(client, lambda number: number < 100)
        dataset = client.push_dataset(archive, "calm")
        began = time.monotonic()
        # What is asked for now and then tells whether it still goes on.
        busy = _asked(client, lambda number: number % 20 != 0 or not _is_over(client, dataset.id))
        seconds = time.monotonic() - began
        found = client.wait_for_dataset(dataset.id, timeout_s=_READY_WITHIN_S)
    if found.status != "ready":
        raise OSError(f"the dataset is {found.status}")
    return [_figure(rested, busy, f"{count} JPEGs, {content}", count / seconds)]


def _is_over(client: Client, dataset_id: str) -> bool:
    return client.dataset(dataset_id).status != "ingesting"


def _asked(client: Client, goes_on: Callable[[int], bool]) -> list[float]:
    """Return the time of each answer in ms."""
    times: list[float] = []
    end = time.monotonic() + _READY_WITHIN_S
    while time.monotonic() < end and goes_on(len(times)):
        began = time.perf_counter()
        client.request("GET", "/v1/jobs", params={"limit": 50})
        times.append((time.perf_counter() - began) * 1000)
        time.sleep(_PAUSE_S)
    return times


def _figure(rested: list[float], busy: list[float], work: str, speed: float) -> Figure:
    middle, high = median(busy), percentile(busy, 0.95)
    shown = f"{middle:.1f} ms median, {high:.1f} ms p95"
    how = (
        f"p95 of {len(busy)} pages of jobs while {work} were taken in at {speed:.0f} images/s; "
        f"at rest {median(rested):.1f} ms median, {percentile(rested, 0.95):.1f} ms p95"
    )
    return Figure("API while an ingest runs", high, shown, BOUND, how)
