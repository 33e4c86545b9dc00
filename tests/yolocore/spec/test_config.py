"""TrainConfig: bounds, presets, hash, problems with their place, and a schema a form can be drawn from."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from yolocore.errors import ConfigError
from yolocore.spec.config import LATER_FIELDS, Hyperparameters, TrainConfig, parse_config, preset_names
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
        ({"hyp": {"anchors": 0}}, "/hyp/anchors", "greater than or equal"),
        ({"batch": 0}, "/batch", "-1"),
        ({"batch": -2}, "/batch", "greater than or equal"),
        ({"freeze": -1}, "/freeze", "a number of rows"),
        ({"freeze": [1, "x"]}, "/freeze", "a number of rows"),
        ({"freeze": []}, "/freeze", "a number of rows"),
        ({"freeze": True}, "/freeze", "a number of rows"),
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


@pytest.mark.parametrize(
    ("values", "pointer", "words"),
    [
        ({"batch": 9, "world_size": 2}, "/batch", "9 cannot be shared by 2"),
        ({"batch": -1, "world_size": 2}, "/batch", "measured"),
        ({"batch": 6, "quad": True}, "/quad", "not 6"),
        ({"batch": 12, "quad": True, "world_size": 2}, "/quad", "not 6"),
        ({"image_weights": True, "rect": True}, "/image_weights", "fixed order"),
        ({"image_weights": True, "world_size": 2}, "/image_weights", "one process"),
        ({"sync_bn": True}, "/sync_bn", "world_size"),
        ({"autoanchor": False, "hyp": {"anchors": 3}}, "/hyp/anchors", "autoanchor"),
        ({"autoanchor": False, "preset": "VOC"}, "/hyp/anchors", "autoanchor"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    values: dict[str, Any], pointer: str, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(values)
    (problem,) = caught.value.problems
    assert (problem.code, problem.pointer) == ("CONFLICT", pointer)
    assert words in problem.message


def test_frozen_rows_are_a_number_or_a_list() -> None:
    assert [parse_config({"freeze": given}).freeze for given in (10, [10], [3, 1, 3])] == [10, 10, (1, 3)]
    listed = parse_config({"freeze": [3, 1]})
    assert parse_config(json.loads(listed.model_dump_json())) == listed


def test_fields_that_came_later_leave_the_hash_of_older_runs_as_it_was() -> None:
    values = TrainConfig().model_dump(mode="json", exclude={"runtime", "preset", *LATER_FIELDS})
    del values["hyp"]["anchors"]
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    assert TrainConfig().config_hash() == hashlib.sha256(text.encode()).hexdigest()
    for name in LATER_FIELDS:
        default = TrainConfig.model_fields[name].default
        other = {"world_size": 2, "sync_bn": True} if name == "sync_bn" else {name: int(default) + 1}
        if isinstance(default, bool) and name != "sync_bn":
            other = {name: not default}
        assert parse_config(other).config_hash() != TrainConfig().config_hash(), name


def test_schema_describes_every_field_for_a_form() -> None:
    schema = TrainConfig.model_json_schema()
    sections = [schema, *(schema["$defs"][name] for name in ("Hyperparameters", "Validation", "Runtime"))]
    for section in sections:
        assert section["additionalProperties"] is False
        for name, field in section["properties"].items():
            if "$ref" not in field:
                assert field["title"] and field["description"] and field["group"], name
