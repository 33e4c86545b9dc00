"""The model studio in a browser: pick, break, jump to the mistake, mend, hold against a dataset, compare."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.browser.test_journey import FLAGS, browser_path, is_trouble, keep_picture
from tests.support.service import World, a_dataset, an_architecture, new_world, on_port

pytestmark = pytest.mark.browser
playwright = pytest.importorskip("playwright.sync_api")


@pytest.fixture
def world(tmp_path: Path, books_in: str) -> Iterator[World]:
    browser_path()
    with new_world(tmp_path) as made:
        yield made


@pytest.fixture
def address(world: World) -> Iterator[str]:
    with on_port(world) as served:
        with httpx.Client(base_url=served, headers=world.headers) as client:
            a_dataset(world, client, "cells")
            an_architecture(client, "mine")
        yield served


@pytest.fixture
def page(address: str, world: World) -> Iterator[playwright.Page]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path(), args=FLAGS)
        opened = browser.new_page(viewport={"width": 1280, "height": 960})
        opened.set_default_timeout(20_000)
        opened.goto(f"{address}/?token={world.token}#/studio")
        yield opened
        browser.close()


def test_a_model_is_written_checked_and_compared(page: playwright.Page) -> None:
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda line: troubles.append(line.text) if is_trouble(line) else None)
    page.get_by_role("heading", name="Model studio").wait_for()
    page.locator("select[name=start]").select_option("yolov5n")
    page.get_by_text("1,872,157", exact=True).wait_for()
    assert page.get_by_role("region", name="Rows").locator("tbody tr").count() == 25
    assert page.locator("svg path[stroke-dasharray]").count() == 6
    keep_picture(page, "studio")

    # A mistake is told while typing; its button puts the caret where it is, by keyboard alone.
    text = page.locator("textarea[name=yaml]")
    good = text.input_value()
    bad = good.replace("[[-1, 6], 1, Concat", "[[-1, 4], 1, Concat")
    text.fill(bad)
    problems = page.get_by_role("region", name="Problems")
    problems.get_by_text("row 12 Concat joins 40\u00d740 from row 11 with 80\u00d780 from row 4").wait_for()
    keep_picture(page, "studio-problem")
    problems.get_by_role("button").first.focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.name") == "yaml"
    place = page.evaluate("document.activeElement.selectionStart")
    assert bad[place:].startswith("4], 1, Concat")
    text.fill(good)
    page.get_by_text("No problem found.").wait_for()

    # Held against a dataset of two classes, and against an architecture that was kept.
    page.locator("select[name=dataset]").select_option(label="cells")
    warnings = page.get_by_role("region", name="Warnings")
    warnings.get_by_text("CLASSES_DIFFER").wait_for()
    page.locator("select[name=other]").select_option(label="mine")
    page.get_by_text("Nothing differs.").wait_for()
    text.fill(good.replace("SPPF, [1024, 5]", "SPPF, [1024, 3]"))
    page.get_by_role("region", name="Difference").get_by_text("k: 5 → 3").wait_for()
    page.locator("input[name=architecture-name]").fill("changed")
    page.get_by_role("button", name="Keep").click()
    page.get_by_text("Kept.").wait_for()
    keep_picture(page, "studio-difference")
    assert not troubles


def test_the_page_reads_chinese(page: playwright.Page) -> None:
    page.get_by_role("heading", name="Model studio").wait_for()
    page.evaluate("document.documentElement.lang = 'zh-CN'")
    page.locator("select[name=start]").select_option("hub/yolov5-p2")
    page.get_by_role("heading", name="模型工作室").wait_for()
    page.get_by_text("参数量").first.wait_for()
    assert page.get_by_role("columnheader").all_inner_texts()[-2:] == ["感受野", "训练时保留"]
    keep_picture(page, "studio-zh")
