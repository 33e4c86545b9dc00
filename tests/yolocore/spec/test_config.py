"""TrainConfig: bounds, presets, hash, problems with their place, and a schema a form can be drawn from."""

from __future__ import annotations

import json
from typing import Any

import pytest

from yolocore.errors import ConfigError
from yolocore.spec.config import Hyperparameters, TrainConfig, parse_config, preset_names
from yolocore.spec.presets import PRESETS, SCRATCH_LOW


def test_defaults_are_the_reference_ones() -> None:
    config = TrainConfig()
    assert (config.epochs, config.batch, config.nominal_batch, config.clip_norm) == (100, 16, 64, 10.0)
    assert config.hyp.model_dump() == SCRATCH_LOW


def test_round_trip_through_json_keeps_value_and_hash() -> None:
    config = parse_config({"preset": "VOC", "hyp": {"lr0": 0.02}, "val": {"batch": 8}})
    again = parse_config(json.loads(config.model_dump_json()))
    assert again == config
    assert again.config_hash() == config.config_hash()


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_valid_and_complete(name: str) -> None:
    config = parse_config({"preset": name})
    assert config.hyp.model_dump() == PRESETS[name]
    assert set(PRESETS[name]) == set(Hyperparameters.model_fields)


def test_given_hyperparameters_win_over_the_preset() -> None:
    config = parse_config({"preset": "scratch-med", "hyp": {"cls": 2.0}})
    assert (config.hyp.cls, config.hyp.obj) == (2.0, 0.7)


def test_the_unused_hyperparameter_of_published_files_is_accepted() -> None:
    assert parse_config({"hyp": {"iou_t": 0.2}}) == TrainConfig()


@pytest.mark.parametrize(
    ("values", "pointer", "words"),
    [
        ({"epochs": 0}, "/epochs", "greater than or equal"),
        ({"epochs": "many"}, "/epochs", "integer"),
        ({"batchsize": 3}, "/batchsize", "unknown key"),
        ({"lr0": 0.1}, "/lr0", "belongs under hyp"),
        ({"hyp": {"lr0": 7}}, "/hyp/lr0", "less than or equal"),
        ({"hyp": {"anchors": 3}}, "/hyp/anchors", "anchors"),
        ({"hyp": {"lr0": float("nan")}}, "/hyp/lr0", "finite"),
        ({"hyp": [1]}, "/hyp", "dictionary"),
        ({"preset": "mine"}, "/preset", "scratch-low"),
        ({"preset": ["VOC"]}, "/preset", "scratch-low"),
        ({"optimizer": "RMSProp"}, "/optimizer", "SGD"),
        ({"val": {"iou_thres": 2}}, "/val/iou_thres", "less than or equal"),
        ({"runtime": {"device": "tpu"}}, "/runtime/device", "pattern"),
    ],
)
def test_a_mistake_is_named_with_its_place(values: dict[str, Any], pointer: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(values)
    (problem,) = caught.value.problems
    assert problem.pointer == pointer
    assert words in problem.message
    assert caught.value.place == pointer


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"epochs": -1, "batch": 0, "colour": "red"})
    assert {problem.pointer for problem in caught.value.problems} == {"/epochs", "/batch", "/colour"}


def test_hash_ignores_runtime_hints_and_sees_everything_else() -> None:
    base = TrainConfig().config_hash()
    assert parse_config({"runtime": {"workers": 4, "cache": "ram", "device": "cpu"}}).config_hash() == base
    assert parse_config({"threads": 1}).config_hash() != base
    assert parse_config({"hyp": {"mixup": 0.5}}).config_hash() != base
    assert parse_config({"val": {"max_det": 100}}).config_hash() != base


def test_schema_describes_every_field_for_a_form() -> None:
    schema = TrainConfig.model_json_schema()
    sections = [schema, *(schema["$defs"][name] for name in ("Hyperparameters", "Validation", "Runtime"))]
    for section in sections:
        assert section["additionalProperties"] is False
        for name, field in section["properties"].items():
            if "$ref" not in field:
                assert field["title"] and field["description"] and field["group"], name
