"""A person in a real browser: sign in, upload, submit, watch, fetch the weights."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.digits import SceneRecipe, build_archive
from examples.service import LocalService
from tests.support.shared import missing

pytestmark = pytest.mark.browser
playwright = pytest.importorskip("playwright.sync_api")

TINY_MODEL = """\
depth_multiple: 0.33
width_multiple: 0.125
anchors: [[15,22, 20,29], [23,32, 29,38]]
backbone:
  - [-1, 1, Conv, [64, 6, 2, 2]]
  - [-1, 1, Conv, [64, 3, 2]]
  - [-1, 1, Conv, [128, 3, 2]]
  - [-1, 1, Conv, [128, 3, 2]]
head:
  - [[2, 3], 1, Detect, [nc, anchors]]
"""
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
# Starting the trainer imports torch; on a busy machine that alone takes a while.
TRAINED_WITHIN_MS = 90_000


def browser_path() -> str:
    """Return the browser to drive; skips, or fails where it is required, if there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        missing("chromium", "no Chromium on PATH")
        raise AssertionError
    return found


@pytest.fixture
def service(tmp_path: Path) -> Iterator[LocalService]:
    browser_path()
    with LocalService(tmp_path / "data") as running:
        yield running


@pytest.fixture
def page(service: LocalService, tmp_path: Path) -> Iterator[playwright.Page]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path(), args=FLAGS)
        opened = browser.new_page(viewport={"width": 1280, "height": 960}, accept_downloads=True)
        opened.set_default_timeout(20_000)
        yield opened
        browser.close()


def keep_picture(page: playwright.Page, name: str) -> None:
    """Save a screenshot where TRAINSHED_SCREENSHOTS says, for a person to look at."""
    folder = os.environ.get("TRAINSHED_SCREENSHOTS")
    if folder:
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


def is_trouble(line: playwright.ConsoleMessage) -> bool:
    """Tell an error of the page from the browser's note of a refused request (a wrong YAML, an empty log)."""
    return line.type == "error" and not line.text.startswith("Failed to load resource")


def test_from_sign_in_to_weights(service: LocalService, page: playwright.Page, tmp_path: Path) -> None:
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda line: troubles.append(line.text) if is_trouble(line) else None)
    archive = tmp_path / "digits.zip"
    archive.write_bytes(build_archive(SceneRecipe(num_train=12, num_val=4, side=96)))

    # The printed address signs in once and takes its token out of the address.
    page.goto(service.browser_url)
    page.get_by_text("No job yet.").wait_for()
    assert "token" not in page.url
    keep_picture(page, "jobs-empty")

    page.get_by_role("link", name="Datasets").click()
    page.locator("input[name=archive]").set_input_files(archive)
    assert page.locator("input[name=dataset-name]").input_value() == "digits"
    page.get_by_role("button", name="Upload").click()
    page.locator("main .status-ready").wait_for()
    pictures = page.locator(".pictures figure img")
    pictures.nth(15).wait_for()
    assert pictures.count() == 16 and pictures.first.evaluate("image => image.decode().then(() => true)")
    page.locator("select[name=split]").select_option("val")
    pictures.nth(4).wait_for(state="detached")
    assert pictures.count() == 4
    report = page.get_by_role("link", name="Report to keep").get_attribute("href")
    assert page.request.get(service.url + str(report)).status == 200
    keep_picture(page, "dataset")

    # A wrong model YAML is told with its line before anything is submitted.
    page.get_by_role("link", name="Train on it").click()
    model = page.locator("textarea[name=yaml]")
    model.fill(TINY_MODEL.replace("[64, 6, 2, 2]", "[64, 6, 2, 2, nonsense]", 1))
    page.get_by_role("alert").get_by_text("line 5").first.wait_for()
    assert page.get_by_role("button", name="Submit job").is_disabled()
    keep_picture(page, "new-job-wrong-yaml")
    model.fill(TINY_MODEL)
    page.get_by_text("Parameters", exact=True).wait_for()

    page.locator("input[name=job-name]").fill("journey")
    page.locator("#field-epochs").fill("0")
    page.get_by_text("at least 1", exact=True).wait_for()
    for field, value in {"epochs": "3", "imgsz": "96", "batch": "4"}.items():
        page.locator(f"#field-{field}").fill(value)
    keep_picture(page, "new-job")
    page.get_by_role("button", name="Submit job").click()

    # The job's page follows the run by itself.
    page.get_by_role("heading", name="journey").wait_for()
    page.locator("main .status-succeeded").wait_for(timeout=TRAINED_WITHIN_MS)
    assert page.locator(".plot canvas").count() == 4
    page.get_by_role("button", name="Table").nth(1).click()
    keep_picture(page, "job")
    assert page.locator(".chart .table-scroll tbody tr").count() == 3

    with page.expect_download() as download:
        page.get_by_role("link", name="best.pt", exact=True).click()
    saved = Path(download.value.path())
    assert saved.read_bytes()[:2] == b"PK" and saved.stat().st_size > 10_000

    page.get_by_role("link", name="Jobs", exact=True).click()
    page.locator("tbody .status-succeeded").wait_for()
    assert troubles == []
