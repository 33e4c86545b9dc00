"""The page to keep: whole in itself, nothing of the upload unescaped, the worst first."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from worker.ingest.page import MAX_PICTURES, PageContents, chosen, make_page
from worker.ingest.statistics import statistics
from yolocore.spec.dataset import Manifest, ManifestImage

EVIL = '<script>alert("x")</script><img src=//evil.example/x onerror=alert(1)>'
JPEG = b"\xff\xd8 small \xff\xd9"


def problem(code: str, severity: str = "warning", **more: Any) -> dict[str, Any]:
    """Return an entry of the report."""
    empty = {"file": None, "line": None, "value": None, "message": "a message", "fix": None, "count": 1}
    return {"code": code, "severity": severity, **empty, **more}


def contents(problems: list[dict[str, Any]], names: list[str], title: str = "set") -> PageContents:
    """Return what a page shows of a dataset with these pictures."""
    images = [
        ManifestImage(
            split="train",
            name=name,
            sha256="a" * 64,
            bytes=1,
            width=64,
            height=48,
            rows=[(0, 0.5, 0.5, 0.2, 0.2)],
        )
        for name in names
    ]
    manifest = Manifest.build([EVIL, "dog"], images)
    result = {
        "status": "ready",
        "errors": 0,
        "warnings": len(problems),
        "num_images": len(images),
        "num_boxes": len(images),
        "num_classes": 2,
        "splits": {"train": len(images), "val": 0, "test": 0},
    }
    return PageContents(title, result, problems, statistics(manifest), manifest.images, lambda position: JPEG)


class Tags(HTMLParser):
    """Collects tags and attributes, and checks that what is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag without content."""
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """Close the last tag."""
        assert self.open.pop() == tag


def tags(page: str) -> Tags:
    """Read a page."""
    reader = Tags()
    reader.feed(page)
    assert reader.open == []
    return reader


def test_nothing_of_the_upload_becomes_markup_and_nothing_is_fetched() -> None:
    entries = [problem("BAD", file=EVIL, line=3, value=EVIL, message=EVIL, fix=EVIL), problem(EVIL, "error")]
    page = make_page(contents(entries, [EVIL.replace("/", "_"), "b.jpg"], title=EVIL))
    found = tags(page).found
    assert {tag for tag, _ in found}.isdisjoint({"script", "link", "iframe", "object", "a", "form"})
    assert not [name for _, attributes in found for name in attributes if name.startswith("on")]
    sources = [attributes["src"] or "" for tag, attributes in found if tag == "img"]
    assert sources and all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert "url(" not in page and "@import" not in page


def test_an_invalid_dataset_shows_its_problems_alone() -> None:
    result = {"status": "invalid", "errors": 1, "warnings": 0}
    page = make_page(PageContents("x.zip", result, [problem("NO_IMAGES", "error", fix="add some")]))
    found = {tag for tag, _ in tags(page).found}
    assert "svg" not in found and "img" not in found
    assert "NO_IMAGES" in page and "add some" in page


def test_codes_are_summed_errors_first_then_the_most_frequent() -> None:
    entries = [
        problem("RARE", "warning"),
        problem("OFTEN", "warning", count=70),
        problem("OFTEN", "warning"),
        problem("HINT", "info", count=900),
        problem("FATAL", "error"),
    ]
    page = make_page(contents(entries, ["a.jpg"]))
    table = page[page.index("<h2>Problems") : page.index("<h2>What it holds")]
    assert re.findall(r"<code>(\w+)</code>", table) == ["FATAL", "OFTEN", "RARE", "HINT"]
    assert ">71<" in table


def test_pictures_with_problems_come_first_found_by_name_label_and_folder() -> None:
    names = [f"images/train/{number:03}.jpg" for number in range(200)]
    entries = [
        problem("LABEL_X", file="set/labels/train/150.txt"),
        problem("IMAGE_X", file="images/train/170.jpg"),
        problem("OTHER", file="elsewhere.txt"),
    ]
    page = make_page(contents(entries, names))
    shown = re.findall(r"<figcaption>images/train/(\d+)\.jpg", page)
    assert shown[:2] == ["150", "170"] and len(shown) == MAX_PICTURES
    assert shown[2] == "000" and int(shown[-1]) > 190


def test_a_rare_kind_of_problem_is_not_hidden_by_a_frequent_one() -> None:
    names = [f"{number:03}.jpg" for number in range(200)]
    entries = [problem("OFTEN", file=f"{number:03}.jpg") for number in range(100)]
    page = make_page(contents([*entries, problem("RARE", file="150.jpg")], names))
    shown = re.findall(r"<figcaption>(\d+)\.jpg", page)
    assert shown[:3] == ["000", "150", "001"]


@pytest.mark.parametrize(
    ("count", "first", "limit", "expected"),
    [
        (3, [2], 5, [2, 0, 1]),
        (10, [9, 8, 7, 6, 5], 4, [9, 8, 0, 4]),
        (4, [3, 2, 1, 0], 4, [3, 2, 1, 0]),
        (0, [], 4, []),
        (10, [], 2, [0, 5]),
        (6, [5, 4, 3, 2, 1], 4, [5, 4, 3, 0]),
    ],
)
def test_which_pictures_are_shown(count: int, first: list[int], limit: int, expected: list[int]) -> None:
    assert chosen(count, first, limit) == expected
