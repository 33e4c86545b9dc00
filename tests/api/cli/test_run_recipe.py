"""A job.yaml: what it may hold, and that whatever is wrong is told by file, line, key and value."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from api.cli.gates import NoWorse, Requirement
from api.cli.origin import content_hash, find_commit, next_key, submission_key
from api.cli.recipe import RecipeError, placed, read_recipe
from api.cli.session import describe_problem
from tests.support.shared import ROOT

FULL = """\
dataset: ../data/cells
architecture: yolov5n
weights: coco
config:
  epochs: 5
  hyp: {lr0: 0.01}
require: [map50>=0.7, "recall > 0.5"]
no_worse_than: main:map50-0.02
name: cells
tags: [main, nightly]
priority: 3
queue: train.cpu
max_runtime_s: 600
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "job.yaml"
    path.write_text(text)
    return path


def test_all_keys_are_read(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, FULL))
    assert (recipe.dataset, recipe.architecture, recipe.weights) == ("../data/cells", "yolov5n", "coco")
    assert recipe.beside(recipe.dataset) == tmp_path / "../data/cells"
    assert recipe.config == {"epochs": 5, "hyp": {"lr0": 0.01}}
    assert recipe.require == (Requirement("map50", ">=", 0.7), Requirement("recall", ">", 0.5))
    assert recipe.no_worse_than == (NoWorse("main", "map50", 0.02),)
    extras = {"name": "cells", "tags": ["main", "nightly"], "priority": 3, "queue": "train.cpu"}
    assert recipe.extras == extras | {"max_runtime_s": 600}


def test_two_keys_are_enough_and_json_is_yaml(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, '{"dataset": "a.zip", "architecture": "m.yaml"}'))
    assert (recipe.config, recipe.require, recipe.extras, recipe.weights) == ({}, (), {}, None)


def test_the_example_is_read() -> None:
    recipe = read_recipe(ROOT / "examples" / "ci" / "job.yaml")
    assert recipe.config["epochs"] == 50 and len(recipe.require) == 2


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("datasett: x", "4:1: there is no key of this name; is 'dataset' meant? [datasett]"),
        ("zzz: x", "4:1: there is no key of this name; there are: dataset, "),
        ("weights: 7", "4:10: weights: must be a text; put a number into quotes [7]"),
        ("weights:", "4:9: weights: must be a text"),
        ("config: 5", "4:9: config: must be a mapping, such as {epochs: 50} [5]"),
        ("require: [map50>=0.1, map5>=0.2]", "4:23: require[1]: no figure is called 'map5'"),
        ("require: {map50: 1}", "4:10: require: must be a text, or a list of texts"),
        ("require: [7]", "4:11: require[0]: must be a text, or a list of texts [7]"),
        ("require: map50>=70", "4:10: require: map50 is between 0 and 1, 70 is not [map50>=70]"),
        ("no_worse_than: [':map50']", "4:17: no_worse_than[0]: name a job or a label"),
        ("tags: main", "4:7: tags: must be a list of texts, such as [main] [main]"),
        ("tags: [1.5]", "4:8: tags[0]: must be a text; put a number into quotes [1.5]"),
        ("priority: high", "4:11: priority: must be a whole number [high]"),
        ("max_runtime_s: true", "4:16: max_runtime_s: must be a whole number [True]"),
        ("name: [a]", "4:7: name: must be a text"),
        ("dataset: twice", "4:1: the key 'dataset' stands here a second time"),
        ("config: {a: !!python/none x}", "4:13: tags are not accepted"),
        ("config: [", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_told_in_its_line(line: str, told: str, tmp_path: Path) -> None:
    path = written(tmp_path, f"# a job\ndataset: d\narchitecture: a\n{line}\n")
    with pytest.raises(RecipeError) as caught:
        read_recipe(path)
    (text,) = [describe_problem(problem) for problem in caught.value.problems]
    assert text.startswith(f"{path}:") and told in text


def test_all_mistakes_are_told_at_once_in_order(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        read_recipe(written(tmp_path, "require: [a, b]\narchitecture: 7\nxyz: 1\n"))
    assert [problem["line"] for problem in caught.value.problems] == [1, 1, 1, 2, 3]
    assert "dataset: is missing" in {problem["message"] for problem in caught.value.problems}


@pytest.mark.parametrize("text", ["", "[]", "7", "\0"])
def test_what_is_no_mapping_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError):
        read_recipe(written(tmp_path, text))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        read_recipe(tmp_path / "job.yaml")
    assert describe_problem(caught.value.problems[0]) == f"{tmp_path}/job.yaml: No such file or directory"


def test_the_service_s_problems_get_the_lines_they_are_about(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, FULL))
    problems = [
        {"pointer": "/config/hyp/lr0", "message": "too large", "value": "0.01"},
        {"pointer": "/config/batch", "message": "does not fit", "value": "7"},
        {"pointer": "/tags/1", "message": "too long"},
        {"pointer": "/elsewhere", "message": "what"},
        {"pointer": "", "message": "all of it"},
    ]
    told = [describe_problem(problem) for problem in placed(recipe, problems)]
    assert told[0] == f"{recipe.path}:6:14: config.hyp.lr0: too large [0.01]"
    # Not in the file: the group it would stand in.
    assert told[1] == f"{recipe.path}:5:3: config.batch: does not fit [7]"
    assert told[2] == f"{recipe.path}:10:14: tags.1: too long"
    assert told[3:] == ["/elsewhere: what", "all of it"]


def test_the_commit_is_the_pipeline_s_else_git_s(tmp_path: Path) -> None:
    assert find_commit(tmp_path, {"CI_COMMIT_SHA": " abc "}) == "abc"
    assert find_commit(tmp_path, {"GITHUB_SHA": "x", "CI_COMMIT_SHA": "y"}) == "x"
    assert find_commit(tmp_path, {"GITHUB_SHA": ""}) is None
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], cwd=tmp_path, check=True)
    assert find_commit(tmp_path, {}) is None
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "a"], cwd=tmp_path, check=True)
    found = find_commit(tmp_path, {})
    assert found is not None and len(found) == 40
    assert find_commit(tmp_path / "gone", {}) is None


def test_the_key_changes_with_content_request_and_commit() -> None:
    request = {"dataset": "ds_1", "architecture": "arch_1", "config": {"epochs": 3}, "tags": ["a"]}
    content = content_hash("d", "a", request)
    assert content_hash("d", "a", request | {"tags": [], "dataset": "ds_2"}) == content
    others = [("e", "a", request), ("d", "b", request), ("d", "a", request | {"config": {}})]
    others.append(("d", "a", request | {"weights": "w"}))
    assert content not in {content_hash(*other) for other in others}
    key = submission_key(content, request, "c1")
    assert key == submission_key(content, dict(reversed(request.items())), "c1")
    changed = [submission_key(content, request, "c2"), submission_key(content, request, None)]
    changed += [submission_key("f", request, "c1"), submission_key(content, request | {"tags": []}, "c1")]
    changed += [next_key(key, "job_1"), next_key(key, "job_2")]
    assert len({key, *changed}) == 7
    assert all(name.isascii() and len(name) < 255 and " " not in name for name in changed)
