"""From a job's submission to its first batch, and from an event in the trainer to the client that sees it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from api.client import Client, Event
from api.client.follow import follow
from benchmarks.bench import Bench
from benchmarks.sample import MODEL, write_archive
from benchmarks.stats import Bound, Figure, median, percentile, spread

START_BOUND = Bound(15.0, "s")
DELIVERY_BOUND = Bound(1.0, "s")
_JOB_WITHIN_S = 600.0
# A worker at rest keeps a trainer loaded; what is timed is a job that finds one.
_REST_S = 10.0


@dataclass
class Course:
    """What a client saw of one job; times in Unix seconds, delays in seconds from `ts` to arrival."""

    submitted: float
    told: dict[str, float] = field(default_factory=dict)
    first_batch: float | None = None
    delays: list[float] = field(default_factory=list)
    num_batches: int = 0

    def take(self, event: Event, arrived: float) -> None:
        """Note one event of the trainer; snapshots and the end are of the service and carry no `ts`."""
        if "ts" not in event.data:
            return
        ts = float(event.data["ts"])
        self.told.setdefault(event.type, ts)
        self.delays.append(arrived - ts)
        if event.type == "batch":
            self.num_batches += 1
            self.first_batch = self.first_batch or arrived

    @property
    def to_first_batch_s(self) -> float:
        """Seconds from the submission to the arrival of the first batch event."""
        assert self.first_batch is not None
        return self.first_batch - self.submitted

    @property
    def parts_s(self) -> tuple[float, float, float, float]:
        """The same in parts: until the trainer's first event, its start, its first batch, the arrival."""
        assert self.first_batch is not None
        points = [self.submitted, *(self.told[kind] for kind in ("phase", "start", "batch"))]
        ends = [*points[1:], self.first_batch]
        a, b, c, d = (end - begin for begin, end in zip(points, ends, strict=True))
        return a, b, c, d


def measure(bench: Bench) -> list[Figure]:
    """Run the same small job once to warm up and then repeatedly; the last one goes to its end."""
    archive = bench.folder / "digits.zip"
    write_archive(archive, num_train=64 if bench.quick else 192, num_val=16)
    with Client(bench.service.url, bench.service.token) as client:
        dataset = client.wait_for_dataset(client.push_dataset(archive, "digits").id, timeout_s=120)
        if dataset.status != "ready":
            raise OSError(f"the sample was refused: {client.dataset_problems(dataset.id)}")
        architecture = client.push_architecture(MODEL.read_text(encoding="utf-8"), "digits")
        job = {"dataset": dataset.id, "architecture": architecture.id, "config": _config(bench.quick)}
        count = 1 if bench.quick else 3
        _run(client, job, to_end=False)
        courses = [_run(client, job, to_end=number == count - 1) for number in range(count)]
    return [_start_figure(courses), _delivery_figure(courses[-1])]


def _config(quick: bool) -> dict[str, Any]:
    return {"epochs": 3 if quick else 6, "imgsz": 160, "batch": 16, "nominal_batch": 16}


def _run(client: Client, job: dict[str, Any], *, to_end: bool) -> Course:
    time.sleep(_REST_S)
    course = Course(submitted=time.time())
    found = client.submit(job)
    for event in follow(client, found.id, deadline=time.monotonic() + _JOB_WITHIN_S):
        course.take(event, time.time())
        if course.first_batch is not None and not to_end:
            client.cancel(found.id)
            break
    ended = client.wait_for_job(found.id, timeout_s=_JOB_WITHIN_S)
    if course.first_batch is None or (to_end and ended.status != "succeeded"):
        raise OSError(f"the job ended as {ended.status}: {ended.error}")
    return course


def _start_figure(courses: list[Course]) -> Figure:
    seconds = [course.to_first_batch_s for course in courses]
    child, loaded, trained, delivered = (
        median(part) for part in zip(*(c.parts_s for c in courses), strict=True)
    )
    how = (
        f"median of {len(courses)} starts on a worker that was at rest, {spread(seconds, 1)} s; "
        f"until the trainer runs {child:.1f}, it has loaded {loaded:.1f}, first batch {trained:.1f}, "
        f"delivery {delivered:.1f} s"
    )
    return Figure(
        "submit to first batch event", median(seconds), f"{median(seconds):.1f} s", START_BOUND, how
    )


def _delivery_figure(course: Course) -> Figure:
    middle, high = median(course.delays), percentile(course.delays, 0.95)
    shown = f"{middle:.2f} s median, {high:.2f} s p95"
    how = (
        f"{len(course.delays)} events of one run ({course.num_batches} batch), event time to arrival over SSE"
    )
    return Figure("trainer to SSE client", middle, shown, DELIVERY_BOUND, how)
