"""Good, bad and hostile model YAMLs: each is decided as its manifest says, quickly and with its place."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.shared import folder, intake_dir
from yolocore.errors import ArchitectureError
from yolocore.spec.architecture import parse_architecture
from yolocore.spec.plan import Plan, plan_architecture
from yolocore.spec.studio import study

INTAKE = folder("TRAINSHED_INTAKE", "intake")
CASES: list[dict[str, Any]] = (
    json.loads((INTAKE / "model_yaml" / "manifest.json").read_text())["cases"] if INTAKE else []
)
# Cases whose fault is the text as a whole, so that there is no row or key to name.
WHOLE_TEXT = {"evil_1mb", "evil_long_scalar", "evil_empty", "evil_binary"}
CANARY = re.compile(r"/tmp/pwned\w*")


def decide(case: dict[str, Any]) -> Plan:
    text = (intake_dir() / "model_yaml" / case["file"]).read_bytes()
    return study(text, source=case["file"]).plan


def named(decision: str) -> list[dict[str, Any]]:
    return [case for case in CASES if case["decision"] == decision]


def test_the_folder_is_there() -> None:
    assert (intake_dir() / "model_yaml").is_dir()
    assert CASES


@pytest.mark.parametrize("case", named("accept"), ids=lambda case: case["id"])
def test_good_texts_are_planned(case: dict[str, Any]) -> None:
    plan = decide(case)
    assert plan.num_parameters > 0
    if case["id"].startswith(("good_n", "good_json", "good_anchor")):
        assert plan.num_parameters == 1_872_157
        assert plan.strides == (8, 16, 32)
    if "strides" in case["expect"] and "," in case["expect"]:
        wanted = [float(number) for number in re.findall(r"\d+", case["expect"])]
        assert list(plan.strides) == wanted


@pytest.mark.parametrize("case", named("reject"), ids=lambda case: case["id"])
def test_bad_texts_are_refused_with_their_place(case: dict[str, Any]) -> None:
    start = time.perf_counter()
    with pytest.raises(ArchitectureError) as caught:
        decide(case)
    assert time.perf_counter() - start < 5
    problems = caught.value.problems
    assert problems and all(problem.code and problem.message for problem in problems)
    assert all(len(problem.message) < 1000 for problem in problems)
    assert all(len(problem.value or "") <= 80 for problem in problems)
    if case["id"] not in WHOLE_TEXT:
        assert all(problem.line and problem.column for problem in problems)
    if "names the row" in case["expect"]:
        assert problems[0].row is not None
        assert re.search(r"(backbone|head)\[\d+\]", problems[0].message)
    for path in CANARY.findall(" ".join(case["must_not"])):
        assert not Path(path).exists()


@pytest.mark.parametrize("case", named("either"), ids=lambda case: case["id"])
def test_debatable_texts_are_planned_or_refused_but_never_crash(case: dict[str, Any]) -> None:
    try:
        plan = decide(case)
    except ArchitectureError as error:
        assert error.problems[0].line is not None
    else:
        assert plan.num_parameters > 0


def test_anchors_listed_from_large_to_small_are_turned_round() -> None:
    text = (intake_dir() / "model_yaml" / "good_anchor_reversed.yaml").read_text()
    plan = plan_architecture(parse_architecture(text))
    assert plan.anchors_px[0][0] == (10, 13)
    assert plan.anchors_px[2][2] == (373, 326)
