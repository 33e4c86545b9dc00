"""The curve of batches over REST: over attempts, from folders, archive and stream, thinned out or whole."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.domain.blobs import BlobStore
from api.domain.failures import Failure, FailureCode
from api.domain.records import Artifact, EpochRow
from api.events.history import History, LiveStreams
from api.jobs.batches import counting_batches, thinned_batches
from api.jobs.table import BATCH_COLUMNS
from tests.support.events import RunOnDisk
from tests.support.service import a_job, client_of, new_world
from tests.support.valkey import ValkeyProcess, running_valkey


def batch(place: int, loss: float | None = 1.0) -> dict[str, Any]:
    """Return the values of the batch event of a place, ten batches an epoch."""
    return {
        "type": "batch",
        "epoch": place // 10,
        "batch": place % 10,
        "batches": 10,
        "loss": {"box": loss, "obj": 0.5, "cls": 0.25},
        "lr": [0.1, 0.01, 0.01],
        "images_per_s": 40.0,
    }


def write_batches(run: RunOnDisk, attempt: int, first_seq: int, places: range, **more: float) -> None:
    for seq, place in enumerate(places, start=first_seq):
        run.write(attempt, range(seq, seq + 1), **batch(place, **more))


@pytest.fixture(scope="module")
def valkey() -> Iterator[ValkeyProcess]:
    with running_valkey() as server:
        yield server


def collected(
    run: RunOnDisk, attempts: list[int], url: str = "unix:///nowhere"
) -> list[tuple[int, int, str]]:
    async def collect() -> list[tuple[int, int, str]]:
        streams = LiveStreams(url, timeout_s=5)
        streams.up = "nowhere" not in url
        try:
            found = counting_batches(History(run.attempts_dir, run.job, streams), attempts)
            return [(one["epoch"], one["batch"], one["id"]) async for one in found]
        finally:
            await streams.close()

    return asyncio.run(collect())


def test_batches_that_were_run_again_count_once(tmp_path: Path) -> None:
    run = RunOnDisk(tmp_path, "job_1")
    run.write(1, range(1, 3))
    write_batches(run, 1, 3, range(8))  # ids 1-3 to 1-10
    run.write(2, range(1, 2), type="resume", epoch=0, batch=5, after="1-7")
    run.write(2, range(2, 3))
    write_batches(run, 2, 3, range(5, 9))  # ids 2-3 to 2-6
    run.write(3, range(1, 2), type="resume", epoch=0, batch=6, after="2-3")
    write_batches(run, 3, 2, range(6, 12))
    found = collected(run, [1, 2, 3, 4])
    assert [epoch * 10 + number for epoch, number, _ in found] == list(range(12))
    assert [event_id for _, _, event_id in found] == [
        *(f"1-{seq}" for seq in range(3, 8)),
        "2-3",
        *(f"3-{seq}" for seq in range(2, 8)),
    ]


@pytest.mark.parametrize(
    "first", [{"type": "phase", "phase": "preparing"}, {"type": "resume", "after": None}]
)
def test_an_attempt_from_the_start_makes_all_before_it_void(tmp_path: Path, first: dict[str, Any]) -> None:
    run = RunOnDisk(tmp_path, "job_1")
    write_batches(run, 1, 1, range(8))
    assert len(collected(run, [1, 2])) == 8, "an attempt that has told nothing voids nothing"
    run.write(2, range(1, 2), **first)
    write_batches(run, 2, 2, range(3))
    assert [event_id for _, _, event_id in collected(run, [1, 2])] == ["2-2", "2-3", "2-4"]


def test_the_stream_adds_what_no_journal_here_has(tmp_path: Path, valkey: ValkeyProcess) -> None:
    run = RunOnDisk(tmp_path, "job_stream")
    write_batches(run, 1, 1, range(4))
    with valkey.client() as client:
        for place in range(2, 8):
            run.ship(client, 1, range(place + 1, place + 2), **batch(place))
        run.ship(client, 2, range(1, 2), type="resume", epoch=0, batch=6, after="1-6")
        run.ship(client, 2, range(2, 3))
        run.ship(client, 2, range(3, 4), **batch(6))
    places = [epoch * 10 + number for epoch, number, _ in collected(run, [1, 2], valkey.url)]
    assert places == list(range(7))


@pytest.mark.usefixtures("books_in")
def test_json_and_table(tmp_path: Path) -> None:
    """The first attempt's folder is gone and its journal archived; the second's is still written."""
    with new_world(tmp_path, retry_backoff_s=0.0) as world, client_of(world) as client:
        job = a_job(world, client)
        base = f"/v1/jobs/{job['id']}/metrics/batches"
        assert client.get(base).json() == {"items": [], "count": 0}
        elsewhere = RunOnDisk(tmp_path / "elsewhere", job["id"])
        for place in range(700):
            elsewhere.write(1, range(place + 1, place + 2), **batch(place, 99.0 if place == 333 else 1.0))
        world.claim()
        stored = BlobStore(world.settings.blobs_dir).put_file(elsewhere.attempts_dir / "1" / "events.jsonl")
        journal = Artifact("events.jsonl", "log", stored.sha256, stored.size_bytes, "application/jsonl")
        world.jobs.fail(job["id"], 1, Failure(FailureCode.CRASHED, "no"), artifacts=[journal])
        world.claim()
        run = RunOnDisk(world.settings.jobs_dir, job["id"])
        run.write(2, range(1, 2), type="resume", epoch=60, batch=0, after="1-600")
        write_batches(run, 2, 2, range(600, 650))

        whole = client.get(base, params={"max_points": 100_000}).json()
        assert whole["count"] == 650 == len(whole["items"])
        assert [item["epoch"] * 10 + item["batch"] for item in whole["items"]] == list(range(650))
        assert whole["items"][640]["id"] == "2-42"
        few = client.get(base, params={"max_points": 20}).json()
        assert few["count"] == 650
        assert len(few["items"]) <= 20
        assert [few["items"][0]["id"], few["items"][-1]["id"]] == ["1-1", "2-51"]
        assert "1-334" in [item["id"] for item in few["items"]]
        assert few == client.get(base, params={"max_points": 20}).json()

        table = client.get(base + ".csv")
        assert table.headers["content-type"].startswith("text/csv")
        head, *lines = table.text.splitlines()
        assert [cell.strip() for cell in head.split(",")] == list(BATCH_COLUMNS)
        assert len(lines) == 650
        assert len(client.get(base + ".csv", params={"max_points": 20}).text.splitlines()) <= 21
        other = world.other_user()
        for url in (base, base + ".csv"):
            assert client.get(url, headers=other).status_code == 404
        assert client.get(base, params={"max_points": 1}).status_code == 422


def test_a_long_history_is_thinned_out_in_seconds(tmp_path: Path) -> None:
    run = RunOnDisk(tmp_path, "job_1")
    for attempt in range(1, 11):
        if attempt > 1:
            run.write(attempt, range(1, 2), type="resume", epoch=0, batch=0, after=f"{attempt - 1}-3001")
        run.write(attempt, range(2, 3002), **batch(0))
    history = History(run.attempts_dir, run.job, LiveStreams("unix:///nowhere", timeout_s=1))
    began = time.monotonic()
    points, count = asyncio.run(thinned_batches(history, list(range(1, 11)), 1000))
    print(f"{count} batches thinned out to {len(points)} in {time.monotonic() - began:.2f} s")
    assert count == 30_000
    assert len(points) <= 1000


@pytest.mark.usefixtures("books_in")
def test_epochs_keep_their_extremes(tmp_path: Path) -> None:
    with new_world(tmp_path) as world, client_of(world) as client:
        job = a_job(world, client)
        claim = world.claim()
        rows = [
            EpochRow(
                epoch,
                {
                    "train": {"box": 9.0 if epoch == 77 else 0.5, "obj": 0.1, "cls": 0.1},
                    "val": None,
                    "map50_95": 0.9 if epoch == 41 else 0.2,
                    "lr": [0.1, 0.1, 0.1],
                },
            )
            for epoch in range(200)
        ]
        world.jobs.record_epochs(job["id"], claim.attempt, rows)
        few = client.get(job["links"]["metrics"], params={"max_points": 24}).json()["items"]
        epochs = [item["epoch"] for item in few]
        assert len(epochs) <= 24
        assert {0, 41, 77, 199} <= set(epochs)
        table = client.get(job["links"]["metrics"] + ".csv", params={"max_points": 24}).text.splitlines()
        assert [int(line.split(",")[0]) for line in table[1:]] == epochs
        assert len(client.get(job["links"]["metrics"]).json()["items"]) == 200
