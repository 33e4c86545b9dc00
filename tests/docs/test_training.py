"""The page on training names code and switches that exist, and each measured trick has its place in it."""

from __future__ import annotations

import importlib
import re
from typing import Any

import pytest

from api.domain.settings import Settings
from tests.support.shared import ROOT
from yolocore.__main__ import build_parser
from yolocore.spec.config import TrainConfig

PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("| ").split(" | ")]
    for line in PAGE.split("\n## The tricks\n")[1].split("\n## ")[0].splitlines()
    if line.startswith("| ") and "---" not in line and not line.startswith("| trick |")
]
PLACES = sorted({place for row in ROWS for place in re.findall(r"`([^`]+)`", row[2])})
SWITCHES = sorted({switch for row in ROWS for switch in re.findall(r"`([^`]+)`", row[3])})


def test_each_row_is_whole() -> None:
    assert len(ROWS) >= 28
    for row in ROWS:
        assert len(row) == 4 and all(row), row


@pytest.mark.parametrize("place", PLACES)
def test_the_place_exists(place: str) -> None:
    parts = place.split(".")
    for length in range(len(parts) - 1, 1, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for name in parts[length:]:
            found = getattr(found, name)
        return
    pytest.fail(f"there is no {place}")


@pytest.mark.parametrize("switch", SWITCHES)
def test_the_switch_exists(switch: str) -> None:
    if switch.startswith("TRAINSHED_"):
        assert switch.removeprefix("TRAINSHED_").lower() in Settings.model_fields
    elif switch.startswith("--"):
        options = build_parser().parse_args(["train", "--data", "data.yaml", switch])
        assert getattr(options, switch[2:].replace("-", "_")) is True
    else:
        fields: Any = TrainConfig.model_fields
        *sections, name = switch.split(".")
        for section in sections:
            fields = fields[section].annotation.model_fields
        assert name in fields


@pytest.mark.parametrize("block", ["tricks, time", "tricks, accuracy", "tricks, early"])
def test_the_figures_have_their_places_and_are_there(block: str) -> None:
    begin, end = f"<!-- figures: {block} -->", f"<!-- end of figures: {block} -->"
    assert PAGE.count(begin) == PAGE.count(end) == 1
    assert "| --- |" in PAGE.split(begin)[1].split(end)[0]
