"""What a configuration asks of a model is checked against its plan."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.shapes import TINY_MODEL
from yolocore.errors import ConfigError
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.config import parse_config
from yolocore.spec.fit import check_fit, frozen_rows
from yolocore.spec.plan import plan_architecture

NUM_ROWS = 11


@pytest.mark.parametrize(
    ("given", "rows"),
    [
        (0, ()),
        (3, (0, 1, 2)),
        ([3], (0, 1, 2)),
        ([0], ()),
        ([], ()),
        ([4, 1], (1, 4)),
        ([1, 1, 4], (1, 4)),
        ((0, 10), (0, 10)),
        (10, tuple(range(10))),
    ],
)
def test_a_number_counts_and_several_name(given: Any, rows: tuple[int, ...]) -> None:
    assert frozen_rows(given, NUM_ROWS) == rows


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (12, "first 12"),
        (-1, "first -1"),
        ([12], "first 12"),
        ([0, 11], "no row 11"),
        ([-2, 3, 40], "no row -2, 40"),
        (11, "nothing is left"),
        (list(range(11)), "nothing is left"),
    ],
)
def test_what_cannot_be_frozen_is_refused_with_its_place(given: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        frozen_rows(given, NUM_ROWS)
    assert caught.value.place == "/freeze"
    assert caught.value.value == str(given)


@pytest.mark.parametrize(
    ("config", "anchors", "place"),
    [({"freeze": 12}, None, "/freeze"), ({"autoanchor": False}, 3, "/autoanchor"), ({}, 3, None)],
)
def test_a_configuration_is_checked_against_the_plan(
    config: dict[str, Any], anchors: int | None, place: str | None
) -> None:
    plan = plan_architecture(parse_architecture(TINY_MODEL), anchors=anchors)
    if place is None:
        return check_fit(parse_config(config), plan)
    with pytest.raises(ConfigError) as caught:
        check_fit(parse_config(config), plan)
    assert caught.value.place == place
    return None
