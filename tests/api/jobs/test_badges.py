"""A figure as a picture: of whose job, for whom, kept how long, and safe whatever a label holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import httpx
import pytest

from api.domain.records import EpochRow
from api.jobs.badges import draw, value_of
from tests.support.service import World, a_job, client_of, new_world, submitted

URL = "/v1/badge.svg"


def succeed(world: World, map50: float) -> None:
    claim = world.claim()
    row = EpochRow(0, {"epoch": 0, "map50": map50, "map50_95": 0.25, "best": True}, event_id="1-2")
    world.jobs.record_epochs(claim.job.id, claim.attempt, [row])
    world.jobs.finish(claim.job.id, claim.attempt)


def told(answer: httpx.Response) -> str | None:
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/svg+xml")
    return Xml.fromstring(answer.text).get("aria-label")


def test_the_newest_succeeded_job_of_the_label_and_owner_is_shown(world: World, client: httpx.Client) -> None:
    job = a_job(world, client, tags=["main", "x"], name="first")
    body: dict[str, Any] = {"dataset": job["dataset"], "architecture": job["architecture"]}
    succeed(world, 0.5)
    assert told(client.get(URL, params={"label": "main"})) == "main map50: 0.500"
    submitted(client, body | {"tags": ["Main"]})
    succeed(world, 0.9)
    submitted(client, body | {"tags": ["main"]})
    first = client.get(URL, params={"label": "main"})
    assert told(first) == "main map50: 0.500", "neither another label nor one that has not ended"
    same = client.get(URL, params={"label": "main"}, headers={"If-None-Match": first.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    succeed(world, 0.75)
    after = client.get(URL, params={"label": "main"}, headers={"If-None-Match": first.headers["etag"]})
    assert told(after) == "main map50: 0.750" and after.headers["cache-control"] == "private, no-cache"
    assert told(client.get(URL, params={"label": "first", "metric": "map50_95"})) == "first map50_95: 0.250"
    stranger = client.get(URL, params={"label": "main"}, headers=world.other_user())
    assert told(stranger) == "main map50: no result"
    assert client.get(URL, params={"label": "main", "metric": "x"}).status_code == 422


@pytest.mark.usefixtures("books_in")
def test_without_a_token_only_where_that_is_set_and_never_by_the_address(tmp_path: Path) -> None:
    for public, status in ((False, 401), (True, 200)):
        with new_world(tmp_path / str(public), public_badges=public) as world, client_of(world) as client:
            a_job(world, client, tags=["main"])
            succeed(world, 0.5)
            address = f"{client.base_url}{URL}?label=main"
            for query in ("", f"&token={world.token}", f"&access_token={world.token}"):
                answer = httpx.get(address + query)
                assert answer.status_code == status
            assert httpx.get(address, headers={"Authorization": "Bearer ts_wrong"}).status_code == 401
            assert httpx.get(f"{client.base_url}/v1/jobs").status_code == 401
        if public:
            assert (
                answer.headers["cache-control"] == "public, max-age=60"
                and told(answer) == "main map50: 0.500"
            )


@pytest.mark.parametrize(
    "label", ['<script>alert("1")</script>', "a&b", "\x00\x1b\ud800", "naïve 模型", "]]>"]
)
def test_whatever_a_label_holds_the_picture_is_one(label: str) -> None:
    root = Xml.fromstring(draw(label, 0.5))
    assert {item.tag.partition("}")[2] for item in root.iter()} == {"svg", "title", "rect", "g", "text"}
    kept = "".join("\ufffd" if character in "\x00\x1b\ud800" else character for character in label)
    assert root.get("aria-label") == f"{kept}: 0.500"


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("value", [None, 0.1, 0.9])
def test_text_is_read_on_its_colour(value: float | None) -> None:
    """4.5 to 1 at least, as WCAG 2.2 (1.4.3) asks."""
    root = Xml.fromstring(draw("x", value))
    names = [
        [item.get("fill") or "" for item in root.iter() if item.tag.endswith(tag)] for tag in ("rect", "text")
    ]
    for ground, ink in zip(*names, strict=True):
        light, dark = sorted((luminance(ground), luminance(ink)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (ground, ink)


def test_a_figure_that_was_not_measured_is_none() -> None:
    values = [None, {}, {"map50": None}, {"map50": float("nan")}, {"map50": True}]
    assert [value_of(best, "map50") for best in values] == [None] * 5
