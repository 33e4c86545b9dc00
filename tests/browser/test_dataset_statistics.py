"""A dataset's statistics in a browser: what harms first, figures as text, room on a small screen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api.domain.blobs import BlobStore
from api.domain.records import DatasetStatus, IngestResult
from api.domain.tasks import TaskBook
from tests.browser.test_journey import FLAGS, browser_path, is_trouble, keep_picture
from tests.support.service import ZIP_HEAD, World, a_dataset, new_world, on_port
from worker.ingest.advice import advise
from worker.ingest.report import Report
from worker.ingest.statistics import statistics
from yolocore.spec.dataset import Manifest, ManifestImage, Split

pytestmark = pytest.mark.browser
playwright = pytest.importorskip("playwright.sync_api")

NAMES = [
    *(f"part {number}" for number in range(24)),
    "a class with a name that is much longer than all others",
]


def picture(number: int, split: Split) -> ManifestImage:
    """Return a picture of a few boxes: every fourth class has none in train, the last class none in val."""
    last = len(NAMES) - 1
    first, behind = (1, last) if split == "train" else (0, last - 1)
    rows = [
        (cls, 0.5, 0.4, 0.02 * (1 + cls), 0.05) for cls in range(first, behind + 1) if number % (cls + 1) == 0
    ]
    return ManifestImage(
        split=split,
        name=f"{split}/{number}.jpg",
        sha256=f"{number:064x}",
        bytes=9,
        width=640,
        height=480,
        rows=rows,
    )


def a_counted_dataset(world: World, client: httpx.Client) -> str:
    """Upload a dataset and let it be found good, with what an ingest counts and advises; return its id."""
    answer = client.put("/v1/datasets", params={"name": "parts"}, content=ZIP_HEAD + b"parts")
    assert answer.status_code == 202, answer.text
    manifest = Manifest.build(
        NAMES, [picture(number, "train" if number % 4 else "val") for number in range(96)]
    )
    counted, report = statistics(manifest), Report()
    for number in range(130):
        report.add(
            "warning", "SPLIT_LEAK", "the same picture is in val", file=f"{number}.jpg", fix="keep apart"
        )
    advise(counted, report)
    written = {"problems": report.entries(), "truncated": report.truncated}
    tasks = TaskBook(world.store, world.settings)
    task = tasks.claim("ingest", "test")
    assert task is not None
    result = IngestResult(
        DatasetStatus.INSPECTED,
        report_sha256=BlobStore(world.settings.blobs_dir).put_bytes(json.dumps(written).encode()).sha256,
        statistics=counted,
        classes=tuple(NAMES),
    )
    tasks.finish_ingest(task.id, task.attempt, result)
    return str(answer.json()["id"])


@pytest.fixture
def page(tmp_path: Path, books_in: str) -> Iterator[playwright.Page]:
    """Open the page of a dataset that was looked at; another one has statistics of an unknown form."""
    path = browser_path()
    with new_world(tmp_path) as world, on_port(world) as address, playwright.sync_playwright() as driver:
        with httpx.Client(base_url=address, headers=world.headers) as client:
            a_dataset(world, client, "bare")
            dataset_id = a_counted_dataset(world, client)
        browser = driver.chromium.launch(executable_path=path, args=FLAGS)
        opened = browser.new_page(viewport={"width": 1280, "height": 960})
        opened.set_default_timeout(20_000)
        opened.goto(f"{address}/?token={world.token}#/datasets/{dataset_id}")
        yield opened
        browser.close()


def test_statistics_are_told_worst_first(page: playwright.Page) -> None:
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda line: troubles.append(line.text) if is_trouble(line) else None)
    advice = page.get_by_role("region", name="Advice").get_by_role("listitem")
    advice.first.get_by_text("(130 times)").wait_for()
    assert "SPLIT_LEAK" in advice.nth(0).inner_text()
    assert "CLASS_NOT_IN_TRAIN" in advice.nth(1).inner_text()
    page.get_by_text("Leaks between splits: 130 the same.").wait_for()

    classes = page.get_by_role("region", name="Boxes by class and split")
    rows = classes.locator("tbody tr")
    assert rows.count() == 20
    assert rows.first.get_by_role("cell").all_inner_texts()[:2] == ["0", "4"]
    assert "not in train" in rows.first.inner_text()
    page.get_by_role("button", name="Show all 25 classes").click()
    assert rows.count() == 25
    for title in ("Boxes on a picture", "Size of boxes", "Shape of boxes", "Size of pictures"):
        assert page.get_by_role("region", name=title).locator("tbody tr").count() > 0
    keep_picture(page, "dataset-statistics")

    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 400
    keep_picture(page, "dataset-statistics-small")

    # Statistics that the page does not know are left out, the rest of the page is there.
    page.get_by_role("link", name="All datasets").click()
    page.get_by_role("link", name="bare").click()
    page.get_by_role("heading", name="bare").wait_for()
    page.locator("main .status-ready").wait_for()
    assert page.get_by_role("region", name="Statistics").count() == 0
    assert troubles == []
